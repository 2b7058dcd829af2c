"""The control plane: knows stacks and nodes, touches no kernel object."""

__version__ = "0.1.0"

STALE = "X-Pystack-Stale"
"""A header of the server's answers: the seconds since an answer was true, and why there is no newer one."""
