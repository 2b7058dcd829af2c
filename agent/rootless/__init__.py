"""pystack without root: the user is root of a user namespace, in which the agent, its networks and its containers live."""

from __future__ import annotations

import os

MARK = "PYSTACK_ROOTLESS"
"""The environment variable, inside the namespaces, that holds the UID outside."""


def inside() -> bool:
    """Whether this process runs in the rootless namespaces."""
    return MARK in os.environ
