"""A stand-in for PAR: it starts agents, registers them with Envoy, and serves the same REST calls as PAR."""
