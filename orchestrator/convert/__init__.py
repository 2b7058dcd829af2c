"""Converts `docker run` command lines and Kubernetes manifests to stack files, with a warning for what has no counterpart."""
