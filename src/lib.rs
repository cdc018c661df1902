//! The pixell-envoy filter: routes a request to the agent it names.
