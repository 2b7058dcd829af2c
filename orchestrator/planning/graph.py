"""The order of services, as a networkx graph: an edge leads from what is needed to who needs it."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx

from orchestrator.stackfile.graph import reached
from orchestrator.stackfile.model import Stack


def dependencies(stack: Stack) -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    names = {s.name for s in stack.services}
    graph.add_nodes_from(s.name for s in stack.services)
    graph.add_edges_from((name, s.name) for s in stack.services for d in s.depends_on if (name := d.service) in names)
    return graph


def waves(stack: Stack) -> tuple[tuple[str, ...], ...]:
    """Services that can start side by side, wave after wave; stopping goes the other way."""
    return tuple(tuple(sorted(wave)) for wave in nx.topological_generations(dependencies(stack)))


def restarted_with(stack: Stack, services: Iterable[str]) -> set[str]:
    """*services* and all that ask, in depends_on, to be restarted with one of them."""
    followers: dict[str, list[str]] = {s.name: [] for s in stack.services}
    for one in stack.services:
        for dependency in one.depends_on:
            if dependency.restart and dependency.service in followers:
                followers[dependency.service].append(one.name)
    return reached(followers, services)
