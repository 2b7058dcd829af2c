"""One node's engine: makes the node equal to its manifest."""
