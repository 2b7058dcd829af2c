"""Kernel objects, a module for each kind: how one is created, updated in place and compared with its description."""
