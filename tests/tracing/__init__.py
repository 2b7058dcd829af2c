"""Traces: spans, and a collector that is there, away, or slow."""
