"""Stack files made of what people have: `docker run` command lines, Kubernetes manifests. What has no counterpart is said."""
