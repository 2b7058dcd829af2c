"""depends_on as a graph: what waits for what, in which order, and the cycle where there is one."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.stackfile.model import Service
from orchestrator.stackfile.reading import Reading


def links(one: Service) -> list[tuple[str, bool]]:
    """(service, required) of everything that *one* needs: depends_on, links, shared namespaces, volumes_from."""
    out = [(d.service, d.required) for d in one.depends_on]
    c = one.container
    for mode in (c.network_mode, c.pid_mode, c.ipc_mode):
        if mode.startswith("service:"):
            out.append((mode[8:], True))
    out += [(target, True) for _, target in c.links if target not in {d.service for d in one.depends_on}]
    out += [(v.split(":")[0], True) for v in c.volumes_from if not v.startswith("container:")]
    return out


def check_dependencies(reading: Reading, active: Mapping[str, Service], known: Mapping[str, Service]) -> None:
    """Names that do not exist, services that a profile leaves out, and cycles."""
    for one in active.values():
        for name, required in links(one):
            path = ("services", one.name, "depends_on", name)
            if name not in known:
                reading.check(path, f"service {name!r} is not in the file", f"there is: {', '.join(known)}")
            elif name not in active and required:
                reading.check(path, f"service {name!r} is left out by its profile", "activate it with --profile")
    cycle = find_cycle(active)
    if cycle:
        places = [
            f"{a} → {b} ({next((d.where for d in active[a].depends_on if d.service == b), active[a].where)})"
            for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True)
        ]
        reading.problem(("services", cycle[0], "depends_on"), "the services wait for each other: " + ", ".join(places),
                        "take one of these out")


def find_cycle(services: Mapping[str, Service]) -> list[str]:
    """One cycle of service names, [] where there is none. Depth first, in the file's order."""
    done: set[str] = set()
    for start in services:
        trail: list[str] = []
        stack = [(start, iter([n for n, _ in links(services[start])]))]
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
                stack.append((following, iter([n for n, _ in links(services[following])])))
    return []
