"""The order of services: what is needed comes before who needs it."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter

from orchestrator.stackfile.graph import reached
from orchestrator.stackfile.model import Stack


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
            if dependency.restart and dependency.service in followers:
                followers[dependency.service].append(one.name)
    return reached(followers, services)
