"""Rollouts belong to the cluster: each is a record of the store, and any server that leads goes on with it."""
