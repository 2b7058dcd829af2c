"""What the server lists, as rows with the types of its API, which cost nothing at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.server.api.nodes import NodeRow
    from orchestrator.server.api.stacks import StackRow, TaskRow


def stacks(client: Client) -> list[StackRow]:
    """All stacks. Raises RefusedError, UnreachableError."""
    found: list[StackRow] = client.json("GET", "/v1/stacks")
    return found


def tasks(client: Client, stack: str, *, oneoff: bool = False) -> list[TaskRow]:
    """The tasks of *stack*, none if it does not exist; with *oneoff* the containers of `run` too. Raises UnreachableError."""
    found: list[TaskRow] = client.json("GET", f"/v1/stacks/{stack}/tasks", query={"oneoff": 1} if oneoff else None)
    return found


def services(client: Client, stack: str) -> dict[str, dict[str, Any]]:
    """The services of *stack* by name, as they were last applied. Raises RefusedError (404), UnreachableError."""
    return {s["name"]: s for s in client.json("GET", f"/v1/stacks/{stack}")["stack"].get("services", [])}


def nodes(client: Client) -> list[NodeRow]:
    """The nodes of the cluster. Raises UnreachableError."""
    found: list[NodeRow] = client.json("GET", "/v1/nodes")
    return found


def ready_nodes(client: Client) -> dict[str, Client]:
    """Clients of the nodes that answer, by name."""
    return {row["name"]: client.at(row["name"]) for row in nodes(client) if row["state"] == "ready"}
