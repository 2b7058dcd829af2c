"""Several nodes on one machine, in namespaces."""
