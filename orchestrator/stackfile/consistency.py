"""What well-formed keys of a stack file cannot say together. Source: Compose Specification, 05-services.md, build.md and
deploy.md."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.stackfile.field_readers import scalar
from orchestrator.stackfile.ingress import rule_numbers
from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.model import Service, StackNetwork
from orchestrator.stackfile.units import parse_bytes


class Conflict(NamedTuple):
    """*path* is below the service."""

    path: Path_
    why: str
    fix: str = ""


Check = Callable[[Service, Mapping[str, Any]], Iterator[Conflict]]


def check(
    reading: LoadContext, services: Mapping[str, Service], networks: Mapping[str, StackNetwork], named: Sequence[str]
) -> None:
    """Problems of *services*, those that no profile leaves out, go to *reading*. *named* are those that the command names."""
    bodies = reading.tree.value.get("services") or {}
    for name, service in services.items():
        above: Path_ = ("services", name)
        if not reading.is_valid(above):
            continue
        for one in CHECKS:
            for conflict in one(service, bodies[name]):
                reading.check((*above, *conflict.path), conflict.why, conflict.fix)
        _ingress(reading, service)
        _build_contexts(reading, service, bodies)
        _addresses(reading, service, networks)
    _container_names(reading, _needed(services, named) if named else services)


TWICE: tuple[tuple[str, tuple[str, ...], Callable[[Any], float]], ...] = (
    ("scale", ("replicas",), float),
    ("cpus", ("resources", "limits", "cpus"), float),
    ("mem_limit", ("resources", "limits", "memory"), parse_bytes),
    ("pids_limit", ("resources", "limits", "pids"), float),
    ("mem_reservation", ("resources", "reservations", "memory"), parse_bytes),
)
"""Keys that `deploy` has too, and how their values are read."""


def given_twice(service: Service, body: Mapping[str, Any]) -> Iterator[Conflict]:
    """Keys of the service whose value differs from the one at the same setting below `deploy`."""
    for key, below, read in TWICE:
        there: Any = body.get("deploy")
        for part in below:
            there = there.get(part) if isinstance(there, dict) else None
        if key not in body or there is None:
            continue
        try:
            same = read(body[key]) == read(there)
        except (TypeError, ValueError):
            continue  # reported where the value is read
        if not same:
            other = f"deploy.{'.'.join(below)}"
            yield Conflict((key,), f"is {scalar(body[key])}, and {other} is {scalar(there)}", "keep one of them")


def build(service: Service, body: Mapping[str, Any]) -> Iterator[Conflict]:
    """Keys of `build` that exclude each other, and platforms that lack the service's own."""
    spec = body.get("build")
    if not isinstance(spec, dict):
        return
    if spec.get("dockerfile") and spec.get("dockerfile_inline"):
        yield Conflict(("build", "dockerfile_inline"), "cannot stand beside dockerfile", "keep one of them")
    platforms = [scalar(p) for p in spec.get("platforms") or ()]
    if platforms and body.get("platform") and scalar(body["platform"]) not in platforms:
        yield Conflict(("build", "platforms"), f"does not have the service's platform, {scalar(body['platform'])}", "add it")


def _ingress(reading: LoadContext, service: Service) -> None:
    """Rules of `x-ingress` that no task can answer, and two that say the same."""
    above: Path_ = ("services", service.name, "x-ingress")
    numbers = rule_numbers(reading, service.name)
    declared = {p.target for p in service.container.ports} | {int(e.partition("/")[0]) for e in service.container.expose}
    seen: dict[str, int] = {}
    for rule in service.ingress:
        if (number := numbers.get(rule.where)) is None:
            continue  # read of another proxy's labels
        if declared and rule.port not in declared:
            has = ", ".join(map(str, sorted(declared)))
            reading.check((*above, number, "port"), f"the service has no port {rule.port}", f"ports: and expose: have {has}")
        first = seen.setdefault(rule.place, number)
        if first != number:
            reading.check((*above, number), f"{rule.place} is x-ingress[{first}] already", "keep one of them")
        if service.container.network_mode not in ("", "bridge", "host"):
            reading.check((*above, number), f"network_mode {service.container.network_mode} has no address of its own")


def seen_requests(service: Service, body: Mapping[str, Any]) -> Iterator[Conflict]:
    """Keys about requests, of a service whose requests nobody sees."""
    if service.ingress:
        return
    for *above, key in (("x-update", "abort_on", "error_rate"), ("x-update", "abort_on", "p99"), ("x-scale", "target", "rps")):
        there: Any = body
        for part in above:
            there = there.get(part) if isinstance(there, dict) else None
        if isinstance(there, dict) and key in there:
            yield Conflict(
                (*above, key), "nobody sees the requests of a service without x-ingress", "add it, or leave this out"
            )


def metrics(service: Service, body: Mapping[str, Any]) -> Iterator[Conflict]:
    """`x-metrics` of tasks that have no address."""
    mode = service.container.network_mode
    if "x-metrics" in body and mode not in ("", "bridge", "host"):
        yield Conflict(("x-metrics",), f"network_mode {mode} has no address of its own", "say it of a service that has one")


def cpu_burst(service: Service, body: Mapping[str, Any]) -> Iterator[Conflict]:
    """A burst without a quota to save it from, or above it. Source: Linux, sched-bwc.rst."""
    c = service.container
    quota = c.cpu_quota or int(c.cpus * (c.cpu_period or 100_000))
    if c.cpu_burst > quota:
        why = f"is {c.cpu_burst} microseconds, and its quota {quota} a period" if quota else "needs a quota to be saved from"
        yield Conflict(("x-cpu-burst",), why, "at most the quota" if quota else "say cpus: or cpu_quota: too")


CHECKS: tuple[Check, ...] = (given_twice, build, seen_requests, metrics, cpu_burst)


def _build_contexts(reading: LoadContext, service: Service, bodies: Mapping[str, Any]) -> None:
    for name, context in service.build.contexts if service.build else ():
        target = context.removeprefix("service:")
        if target == context:
            continue
        path: Path_ = ("services", service.name, "build", "additional_contexts", name)
        if target not in bodies:
            reading.check(path, f"service {target!r} is not in the file")
        elif reading.is_valid(("services", target)) and not bodies[target].get("build"):
            reading.check(path, f"service {target!r} is not built", "give it build:, or name its image with docker-image://")


def _addresses(reading: LoadContext, service: Service, networks: Mapping[str, StackNetwork]) -> None:
    """A fixed address lies in one of the pools that its network is given."""
    for attachment in service.container.attachments:
        network = next((n for n in networks.values() if n.name == attachment.network), None)
        if network is None:
            continue
        for key, address in (("ipv4_address", attachment.ipv4), ("ipv6_address", attachment.ipv6)):
            if not address:
                continue
            found = ipaddress.ip_address(address)
            pools = [s.cidr for s in network.subnets if ipaddress.ip_network(s.cidr).version == found.version]
            if pools and not any(found in ipaddress.ip_network(pool) for pool in pools):
                reading.check(
                    ("services", service.name, "networks", network.key, key),
                    f"{address} is not in {' or '.join(pools)}",
                    f"choose one of network {network.key}'s addresses",
                )


def _needed(services: Mapping[str, Service], named: Sequence[str]) -> dict[str, Service]:
    """The *named* services and those that they depend on: as in Docker Compose, others may have a name of theirs."""
    out: dict[str, Service] = {}
    todo = list(named)
    while todo:
        name = todo.pop()
        if name in services and name not in out:
            out[name] = services[name]
            todo += [d.service for d in services[name].depends_on]
    return out


def _container_names(reading: LoadContext, services: Mapping[str, Service]) -> None:
    seen: dict[str, str] = {}
    for name, service in services.items():
        chosen = service.container_name
        if chosen and seen.setdefault(chosen, name) != name:
            reading.check(
                ("services", name, "container_name"),
                f"{chosen!r} is service {seen[chosen]}'s already",
                "choose another one, or remove it",
            )
