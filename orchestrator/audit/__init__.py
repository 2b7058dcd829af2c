"""Held against the CIS Docker Benchmark: what of a stack, or of what runs, could be confined better. Pure."""
