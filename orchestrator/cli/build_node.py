"""Where to build: on a node by its name, or on one with a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.cli.client import Client


def node_of(client: Client, wanted: str, where: str) -> str:
    """The name of the node that *wanted* means, a name or a label (NAME, NAME=VALUE); of several the one with the fewest tasks.
    Raises PystackError, which says *where* that was asked for."""
    from orchestrator.errors import PystackError

    rows = client.json("GET", "/v1/nodes")
    if any(row["name"] == wanted for row in rows):
        return wanted
    name, _, value = wanted.partition("=")
    fits = [row for row in rows if name in row["labels"] and (not value or row["labels"][name] == value)]
    ready = [row for row in fits if row["state"] == "ready" and row["availability"] == "active"]
    if not ready:
        why = (
            f"of {', '.join(row['name'] for row in fits)} none is ready and active"
            if fits
            else "no node has this name or label"
        )
        raise PystackError(f"{where}: build on {wanted!r}: {why}: `pystack node ls`, `pystack node label NODE {wanted}`")
    return str(min(ready, key=lambda row: (row["tasks"], row["name"]))["name"])
