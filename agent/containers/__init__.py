"""Containers: the OCI bundle, the runtime, logs, exec."""
