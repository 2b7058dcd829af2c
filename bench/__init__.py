"""Benchmarks: each against a floor or a rival in the same run, as a ratio."""
