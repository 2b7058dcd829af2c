"""Deliver a manifest to a node, bring back its status."""
