//! What the demo, the tests and the bench share: a real Envoy with the shipped configuration, and real agents.
