"""Stacks of others, and whole lives of them on the real kernel."""
