"""From stacks, tasks and nodes to what each proxy must answer. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from agent.contract.network import Network
from agent.contract.task import Task
from orchestrator.ingress.model import STACK, IngressSettings, Issuer
from orchestrator.planning.manifests import ingress_network
from orchestrator.stackfile.model import IngressRule, Stack

MOST_SHARES = 256
"""Entries in one list of upstreams: weights are kept as exactly as these allow."""
PRIVATE = (".internal", ".local", ".localhost", ".test", ".lan", ".home.arpa")
"""Names that no authority certifies. Source: RFC 6761, RFC 6762, RFC 8375, ICANN resolution 2024.07.29.06."""


class Claim(NamedTuple):
    """*rule* of a *service* of *stack*."""

    stack: str
    service: str
    rule: IngressRule


class Upstream(NamedTuple):
    """Where a task answers (`10.0.0.5:80`), and how many *shares* of new requests it gets."""

    dial: str
    shares: int


class Site(NamedTuple):
    """A host and path, how they are answered (*rule*, the first that was claimed), and by which tasks. *tls* is resolved."""

    rule: IngressRule
    tls: str
    upstreams: tuple[Upstream, ...]
    users: tuple[tuple[str, str], ...] = ()


def claims_of(stacks: Iterable[Stack]) -> list[Claim]:
    """Every rule of *stacks*, in the order of their names and of their files."""
    return [
        Claim(stack.name, service.name, rule)
        for stack in sorted(stacks, key=lambda s: s.name)
        for service in stack.services
        for rule in service.ingress
    ]


def conflicts(stack: Stack, others: Iterable[Stack]) -> list[str]:
    """What *stack* claims of hosts and paths that another stack has, with both places."""
    taken = {(c.rule.host, c.rule.path): c for c in claims_of(o for o in others if o.name != stack.name)}
    return [
        f"{claim.rule.where}: services.{claim.service}.x-ingress: {claim.rule.host}{claim.rule.path} is answered by service "
        f"{other.service} of stack {other.stack} already ({other.rule.where})\n    → choose another host or path, or take that "
        "one out of its file and bring it up first"
        for claim in claims_of([stack])
        if (other := taken.get((claim.rule.host, claim.rule.path)))
    ]


def issuer_of(rule: IngressRule, settings: IngressSettings) -> str:
    """Who certifies the host of *rule*: acme, internal, manual, or off for nobody."""
    if rule.tls:
        return rule.tls
    return "internal" if rule.host.endswith(PRIVATE) or "." not in rule.host else settings.issuer


def hosts_to_certify(claims: Iterable[Claim], settings: IngressSettings) -> dict[str, Issuer]:
    """The hosts that the control plane has certificates made for."""
    wanted: dict[str, Issuer] = {}
    for claim in claims:
        issuer = issuer_of(claim.rule, settings)
        if issuer == "acme" or issuer == "internal":
            wanted.setdefault(claim.rule.host, "acme" if issuer == "acme" else "internal")
    return wanted


def sites_for(
    node: str,
    claims: Sequence[Claim],
    settings: IngressSettings,
    tasks: Iterable[Task],
    networks: Mapping[str, Network],
    backends: Sequence[Set[str]],
    underlays: Mapping[str, str],
) -> list[Site]:
    """What the proxy on *node* answers. Of the tasks of a service those count that are in the first of *backends* that has any
    of them, as for the addresses of services. *underlays* are the addresses of the nodes."""
    by_service: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        if task.desired == "running" and task.stack != STACK:
            by_service.setdefault((task.stack, task.service), []).append(task)
    grouped: dict[tuple[str, str], list[Claim]] = {}
    owners: dict[tuple[str, str], str] = {}
    for claim in claims:
        place = (claim.rule.host, claim.rule.path)
        if owners.setdefault(place, claim.stack) == claim.stack:  # the other stack was there first: `plan` says so
            grouped.setdefault(place, []).append(claim)
    sites = []
    for group in grouped.values():
        answering = []
        for claim in group:
            known = by_service.get((claim.stack, claim.service), [])
            ready = next((found for names in backends if (found := [t for t in known if t.name in names])), [])
            dials = [d for t in ready if (d := _dial(node, t, claim.rule.port, networks, underlays))]
            answering.append((claim.rule.weight, dials))
        sites.append(Site(rule=group[0].rule, tls=issuer_of(group[0].rule, settings), upstreams=_shares(answering)))
    return sorted(sites, key=lambda s: (s.rule.host.startswith("*."), s.rule.host, -len(s.rule.path), s.rule.path))


def _dial(node: str, task: Task, port: int, networks: Mapping[str, Network], underlays: Mapping[str, str]) -> str:
    """Where the proxy on *node* reaches *port* of *task*, "" if nowhere."""
    if task.container.network_mode == "host":
        address = "127.0.0.1" if task.node == node else underlays.get(task.node, "")
    else:
        name = ingress_network(task, networks)
        one = next((a for a in task.container.attachments if a.network == name), None)
        address = (one.ipv4 or one.ipv6) if one else ""
        if one and networks[name].driver == "bridge" and task.node != node:
            return ""  # a bridge is of one host
    return "" if not address else f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _shares(answering: Sequence[tuple[int, Sequence[str]]]) -> tuple[Upstream, ...]:
    """Shares by which each service gets what its weight says, however many tasks it has. Where only services of weight 0 have
    tasks, they answer all the same."""
    live = [(weight, dials) for weight, dials in answering if dials and weight] or [(1, d) for _, d in answering if d]
    if not live:
        return ()
    common = math.lcm(*(len(dials) for _, dials in live))
    raw = [(weight * common // len(dials), dial) for weight, dials in live for dial in dials]
    divisor = math.gcd(*(shares for shares, _ in raw))
    total = sum(shares for shares, _ in raw) // divisor
    scale = min(1.0, MOST_SHARES / total)
    return tuple(Upstream(dial, max(1, round(shares // divisor * scale))) for shares, dial in raw)
