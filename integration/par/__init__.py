"""A stand-in for PAR: starts agents, routes to them through Envoy, answers the same REST calls."""
