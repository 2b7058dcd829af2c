"""The engine: containers and networks of one node, made equal to a manifest."""
