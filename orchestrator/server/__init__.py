"""The control plane and its REST API."""
