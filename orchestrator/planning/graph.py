"""The order of services: what is needed comes before who needs it."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter

from orchestrator.stackfile.graph import reached
from orchestrator.stackfile.model import Dependency, Service, Stack


def waves(stack: Stack) -> tuple[tuple[str, ...], ...]:
    """Services that can start side by side, wave after wave; stopping goes the other way."""
    names = {s.name for s in stack.services}
    order = TopologicalSorter({s.name: {d.service for d in s.depends_on} & names for s in stack.services})
    order.prepare()
    out = []
    while order.is_active():
        wave = order.get_ready()
        out.append(tuple(sorted(wave)))
        order.done(*wave)
    return tuple(out)


def restarted_with(stack: Stack, services: Iterable[str]) -> set[str]:
    """*services* and all that ask, in depends_on, to be restarted with one of them."""
    followers: dict[str, list[str]] = {s.name: [] for s in stack.services}
    for one in stack.services:
        for dependency in one.depends_on:
            if restarts_with(one, dependency) and dependency.service in followers:
                followers[dependency.service].append(one.name)
    return reached(followers, services)


def restarts_with(one: Service, dependency: Dependency) -> bool:
    """Whether *one* is to be restarted where the other service is restarted in place: not for a namespace's sake, which
    outlives that, or ends with it and is followed by the node itself."""
    return dependency.restart and not (dependency.implied and dependency.service in owners(one))


def owners(one: Service) -> dict[str, str]:
    """The services that own namespaces or mounts which *one* has, and what it has of each, in words."""
    c, out = one.container, dict[str, str]()
    for mode, words in ((c.network_mode, "network"), (c.pid_mode, "PID"), (c.ipc_mode, "IPC")):
        kind, _, name = mode.partition(":")
        if kind == "service":
            out.setdefault(name, f"{words} namespace")
    for donor in c.volumes_from:
        if not donor.startswith("container:"):
            out.setdefault(donor.partition(":")[0], "volumes")
    return out


def followed_by(stack: Stack, services: Iterable[str]) -> set[str]:
    """The services whose containers end and start with those of *services*, since they are in PID namespaces of theirs."""
    users: dict[str, list[str]] = {s.name: [] for s in stack.services}
    for one in stack.services:
        kind, _, name = one.container.pid_mode.partition(":")
        if kind == "service" and name in users:
            users[name].append(one.name)
    return reached(users, services)
