"""`pystack compose --dry-run VERB`: the lines of progress that the verb would show, and nothing done.

`up` and `create` show a plan's steps (`show_plan`); the others follow from the present state. Source: Docker Compose,
"Use Dry Run mode to test your command".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.cli.compose_progress import say, say_line
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.options import StackOptions
    from orchestrator.server.api.stacks import TaskRow

RUNS = ("running", "paused", "starting", "restarting")
ENDED = ("exited", "failed", "created", "stopped")
WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "kill": (RUNS, ("Killing", "Killed")),
    "pause": (("running",), ("Paused",)),
    "unpause": (("paused",), ("Unpaused",)),
    "restart": ((*RUNS, *ENDED), ("Restarting", "Started")),
    "rm": (ENDED, ("Removing", "Removed")),
    "start": (ENDED, ("Starting", "Started")),
    "stop": (RUNS, ("Stopping", "Stopped")),
}
"""By verb the states of the containers that it concerns, and what is said of each."""
OF_IMAGES = {"build": ("Building", "Built"), "pull": ("Pulling", "Pulled"), "push": ("Pushing", "Pushed")}
VERBS = (*WORDS, *OF_IMAGES, "down", "scale")
"""The verbs of several services that this module answers for."""
OF_ONE = ("commit", "cp", "exec", "export", "run")
"""Those of one container."""


def pretend(verb: str, stack: StackOptions, services: Sequence[str], scale: dict[str, int] | None) -> None:
    """Say what *verb* would do. Raises NoSuchServiceError, UnreachableError."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.selection import of_stack

    if verb in OF_IMAGES:
        return _images(verb, stack, services)
    client = Client(start=True)
    rows = of_stack(client, stack.name(), tuple(services))
    if verb == "down":
        return _down(client, stack.name(), rows, whole=not services)
    if scale:
        from orchestrator.cli.show_plan import show_plan

        return show_plan(client, stack.load(quiet=True), scale=scale, services=tuple(scale))
    states, words = WORDS[verb]
    for row in rows:
        if row["state"] in states:
            _each(row["task"], words)


def pretend_one(verb: str, stack: StackOptions, given: Mapping[str, Any]) -> None:
    """Say what *verb*, one of OF_ONE, would do to a container. Raises PystackError where it could not be done, and for a
    terminal or an output, which only a command that runs can have."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.selection import chosen, not_running, only

    if verb == "run":
        return _run(stack, given)
    client = Client(start=True)
    if verb == "cp":
        ends = [end.partition(":") for end in (given["source"], given["target"])]
        [service] = [name for name, colon, _ in ends if colon] or [""]
        for row in chosen(client, stack, (service,), given["index"]):
            source, target = (f"{row['container_name']}:{path}" if colon else name for name, colon, path in ends)
            _each(f"{row['container_name']} copy {source} to {target}", ("Copying", "Copied"))
        return
    row = only(client, stack, given["service"], given["index"])
    if verb == "exec":
        if row["state"] != "running":
            raise not_running(given["service"], given["index"], row)
        if not given["detach"]:
            raise PystackError("interactive exec is not supported in dry-run mode: take -d")
        return say_line(f'Execute command "{" ".join(given["command"])}" in "{row["container_name"]}" (detached mode)')
    _each(row["container_name"], {"commit": ("Committing", "Committed"), "export": ("Exporting", "Exported")}[verb])


def _run(stack: StackOptions, given: Mapping[str, Any]) -> None:
    from orchestrator.cli.client import Client
    from orchestrator.cli.show_plan import show_plan

    loaded = stack.load(quiet=True, named=(given["service"],))
    found = next((one for one in loaded.services if one.name == given["service"]), None)
    if found is None:
        raise PystackError(f"no such service: {given['service']}")
    needed = () if given["no_deps"] else tuple(d.service for d in found.depends_on)
    if needed:
        show_plan(Client(start=True), loaded, services=needed)
    if not given["detach"]:
        raise PystackError("interactive run is not supported in dry-run mode: take -d")
    _each(given["name"] or f"{loaded.stack.name}-{found.name}-run", ("Creating", "Created", "Starting", "Started"))


def _each(name: str, words: Sequence[str], kind: str = "Container") -> None:
    for word in words:
        say(kind, name, word)


def _down(client: Client, name: str, rows: Sequence[TaskRow], *, whole: bool) -> None:
    for row in rows:
        _each(row["task"], ("Stopping", "Stopped", "Removing", "Removed"))
    if whole and rows:
        networks = dict.fromkeys(network for row in rows for network in row["addresses"])
        for network in networks:
            if network.startswith(f"{name}_"):
                _each(network, ("Removing", "Removed"), "Network")


def _images(verb: str, stack: StackOptions, services: Sequence[str]) -> None:
    loaded = stack.load(quiet=True, named=services)
    for service in loaded.services:
        if (not services or service.name in services) and (verb == "pull") == (service.build is None):
            _each(service.container.image, OF_IMAGES[verb], "Image")
