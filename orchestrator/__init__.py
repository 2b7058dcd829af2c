"""The control plane: knows stacks and nodes, touches no kernel object."""

from agent.contract import version

__version__ = version.VERSION
__all__ = ["STALE", "__version__"]

STALE = "X-Pystack-Stale"
"""A header of the server's answers: the seconds since an answer was true, and why there is no newer one."""
LEADER = "X-Pystack-Leader"
"""A header of the refusals of a server that does not lead, and so did nothing: the name of the one that does, "" for none."""
