"""depends_on as a graph: what waits for what, in which order, and the cycle where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.model import Service


def check_dependencies(reading: LoadContext, active: Mapping[str, Service], known: Mapping[str, Service]) -> None:
    """Names that do not exist, services that a profile leaves out, and cycles."""
    for one in active.values():
        for dependency in one.depends_on:
            name, path = dependency.service, ("services", one.name, "depends_on", dependency.service)
            if name not in known:
                reading.check(path, f"service {name!r} is not in the file", f"there is: {', '.join(known)}")
            elif name not in active and dependency.required:
                reading.check(path, f"service {name!r} is left out by its profile", "activate it with --profile")
    cycle = find_cycle(active)
    if cycle:
        places = [
            f"{a} → {b} ({next((d.where for d in active[a].depends_on if d.service == b), active[a].where)})"
            for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True)
        ]
        reading.problem(
            ("services", cycle[0], "depends_on"),
            "the services wait for each other: " + ", ".join(places),
            "take one of these out",
        )


def reached(edges: Mapping[str, Iterable[str]], start: Iterable[str]) -> set[str]:
    """Those of *start*, and of what *edges* lead to from there, that *edges* know."""
    out, todo = set[str](), list(start)
    while todo:
        if (name := todo.pop()) in edges and name not in out:
            out.add(name)
            todo += edges[name]
    return out


def needed(services: Iterable[Service], chosen: Iterable[str]) -> set[str]:
    """*chosen* and all services that they depend on."""
    return reached({s.name: [d.service for d in s.depends_on] for s in services}, chosen)


def dependencies_first(services: Mapping[str, Service]) -> list[str]:
    """The names of *services*, which have no cycle, in the order of the alphabet, but each after all that it depends on."""
    out: dict[str, None] = {}

    def visit(names: Iterable[str]) -> None:
        for name in sorted(names):
            if name in services and name not in out:
                visit(d.service for d in services[name].depends_on)
                out[name] = None

    visit(services)
    return list(out)


def find_cycle(services: Mapping[str, Service]) -> list[str]:
    """One cycle of service names, [] where there is none. Depth first, in the file's order."""
    done: set[str] = set()
    for start in services:
        trail: list[str] = []
        stack = [(start, iter([d.service for d in services[start].depends_on]))]
        while stack:
            name, rest = stack[-1]
            if name not in trail:
                trail.append(name)
            following = next((n for n in rest if n in services and n not in done), None)
            if following is None:
                done.add(name)
                trail.pop()
                stack.pop()
            elif following in trail:
                return trail[trail.index(following) :]
            else:
                stack.append((following, iter([d.service for d in services[following].depends_on])))
    return []
