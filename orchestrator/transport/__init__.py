"""How the control plane reaches nodes: delivers manifests, and receives statuses."""
