"""The Docker Engine API of a node, and its manifest endpoint."""
