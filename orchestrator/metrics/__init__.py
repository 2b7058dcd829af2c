"""What Prometheus asks of a server: metrics of the cluster, and which tasks have metrics of their own."""
