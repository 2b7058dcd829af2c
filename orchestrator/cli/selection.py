"""Which tasks of a stack a command is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import StackOptions, declared
from orchestrator.cli.rows import services as applied_services
from orchestrator.cli.rows import tasks
from orchestrator.errors import NoSuchServiceError, PystackError, RefusedError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.server.api.stacks import TaskRow


def chosen(client: Client, stack: StackOptions, services: tuple[str, ...] = (), index: int = 0) -> list[TaskRow]:
    """The tasks of *services*, or of the whole stack, as rows of the API; *index* picks one replica. Raises PystackError."""
    return of_stack(client, stack.name(), services, index)


def of_stack(client: Client, name: str, services: tuple[str, ...] = (), index: int = 0) -> list[TaskRow]:
    """The stack's tasks that have a container; those whose node does not answer are named on stderr and left out.

    Raises NoSuchServiceError for a service that neither the stack nor its file has."""
    rows = tasks(client, name)
    unknown = set(services) - {row["service"] for row in rows}
    unknown -= _services_without_tasks(client, name) if unknown else set()
    unknown -= declared(unknown) if unknown else set()
    if unknown:
        raise NoSuchServiceError(unknown, name, {row["service"] for row in rows})
    rows = [row for row in rows if (not services or row["service"] in services) and (not index or row["index"] == index)]
    for row in rows:
        if row["state"] == "unknown":
            click.echo(f"{row['task']} is left out: {row['error']}", err=True)
    return [row for row in rows if row["id"] and row["state"] != "unknown"]


def _services_without_tasks(client: Client, name: str) -> set[str]:
    try:
        return set(applied_services(client, name))
    except RefusedError:
        return set()


def not_running(service: str, index: int, row: TaskRow | None = None) -> PystackError:
    """The error of a verb that needs a container of *service*, or its replica *index*, in the words that scripts know. *row* is
    what there is instead."""
    which = f" container #{index}" if index > 1 else ""
    why = f"{row['container_name']} is {row['state']}" if row else "`pystack ps -a` lists what there is"
    return PystackError(f'service "{service}" is not running{which}: {why}')


def only(client: Client, stack: StackOptions, service: str, index: int) -> TaskRow:
    """The row of one replica of *service*, the first that runs if *index* is 0; one that `run` made if no replica runs. Raises
    PystackError if there is none."""
    rows = chosen(client, stack, (service,), index)
    if running := [row for row in rows if row["state"] in ("running", "paused")]:
        rows = running
    else:  # one that `run` made serves too
        rows = [
            r
            for r in tasks(client, stack.name(), oneoff=True)
            if r["oneoff"] and r["service"] == service and r["state"] == "running"
        ] or rows
    if not rows:
        raise not_running(service, index)
    return rows[0]
