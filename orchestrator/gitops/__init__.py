"""GitOps: a git repository is the desired state of the cluster. Commits are fetched, planned and applied, and rolled back if
they fail."""
