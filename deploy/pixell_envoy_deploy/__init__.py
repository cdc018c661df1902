"""Rolls pixell-envoy out into the ECS service that runs PAR. Each command says first what it does to running agents."""
