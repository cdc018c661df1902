//! The filter in a real Envoy with the shipped configuration, driven by real clients against real agents. One topic a file.

mod smoke;
