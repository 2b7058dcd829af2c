"""The cluster as Docker's clients know a swarm: nodes, services, tasks, secrets and configs of the Engine API, at a socket of
its own.
"""
