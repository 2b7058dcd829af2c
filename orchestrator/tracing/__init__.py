"""Traces of what takes a while: spans, how they are passed on, and how they reach a collector."""
