"""Image names as the control plane hands them to a node."""

from __future__ import annotations


def tagged(name: str) -> str:
    """*name* with a tag: of a name without one the Docker Engine API fetches all that a registry has."""
    return name if "@" in name or ":" in name.rpartition("/")[2] else f"{name}:latest"
