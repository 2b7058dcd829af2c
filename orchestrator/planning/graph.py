"""The order of services, as a networkx graph: an edge leads from what is needed to who needs it."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx

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


def closure(stack: Stack, services: frozenset[str]) -> set[str]:
    """*services* and all that they need."""
    graph = dependencies(stack)
    return set(services).union(*(nx.ancestors(graph, s) for s in services if s in graph))


def restarted_with(stack: Stack, services: Iterable[str]) -> set[str]:
    """*services* and all that ask, in depends_on, to be restarted with one of them."""
    out = set(services)
    while more := {s.name for s in stack.services if any(d.restart and d.service in out for d in s.depends_on)} - out:
        out |= more
    return out
