"""From stacks, tasks and nodes to what each proxy must answer. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from fractions import Fraction
from typing import NamedTuple

from agent.contract.network import Network
from agent.contract.task import Task
from orchestrator.ingress.model import STACK, IngressSettings, Issuer
from orchestrator.planning.manifests import connection_weights, ingress_network
from orchestrator.server.records import StackRecord
from orchestrator.stackfile.model import IngressRule, Stack
from orchestrator.stackfile.workloads import AbortOn

MOST_SHARES = 256
"""Entries in one list of upstreams: weights are kept as exactly as these allow."""
PRIVATE = (".internal", ".local", ".localhost", ".test", ".lan", ".home.arpa")
"""Names that no authority certifies. Source: RFC 6761, RFC 6762, RFC 8375, ICANN resolution 2024.07.29.06."""


class Claim(NamedTuple):
    """*rule* of a *service* of *stack*; one that is *idle* may have no task until somebody asks for it."""

    stack: str
    service: str
    rule: IngressRule
    idle: bool = False


class Upstream(NamedTuple):
    """Where *task* answers (`10.0.0.5:80`), and how many *shares* of new requests it gets."""

    dial: str
    shares: int
    task: str = ""


class Site(NamedTuple):
    """A host and path, how they are answered (*rule*, the first that was claimed), and by which tasks. *tls* is resolved.
    *idle* are the services (`<stack>/<service>`) that get a task when somebody asks: requests wait for it."""

    rule: IngressRule
    tls: str
    upstreams: tuple[Upstream, ...]
    users: tuple[tuple[str, str], ...] = ()
    idle: tuple[str, ...] = ()


def claims_of(stacks: Iterable[Stack]) -> list[Claim]:
    """Every rule of *stacks*, in the order of their names and of their files."""
    return [
        Claim(stack.name, service.name, rule, service.scale is not None and not service.scale.least)
        for stack in sorted(stacks, key=lambda s: s.name)
        for service in stack.services
        for rule in service.ingress
    ]


def conflicts(stack: Stack, others: Iterable[Stack]) -> list[str]:
    """What *stack* claims of hosts and paths that another stack has, with both places."""
    taken = {c.rule.place: c for c in claims_of(o for o in others if o.name != stack.name)}
    return [
        f"{claim.rule.where}: services.{claim.service}.x-ingress: {claim.rule.place} is answered by service "
        f"{other.service} of stack {other.stack} already ({other.rule.where})\n    → choose another host or path, or take that "
        "one out of its file and bring it up first"
        for claim in claims_of([stack])
        if (other := taken.get(claim.rule.place))
    ]


def port_conflicts(stack: Stack, settings: IngressSettings, others: Iterable[Stack]) -> list[str]:
    """What *stack* publishes of the ports of the proxies, and what it wants of them that has another use."""
    if stack.name == STACK:
        return []
    own = {settings.http_port, settings.https_port}
    others = [o for o in others if o.name != stack.name]
    taken = own | {c.rule.tcp for c in claims_of([stack, *others]) if c.rule.tcp}
    published = {p.published: s for o in others for s in o.services for p in s.container.ports if p.protocol == "tcp"}
    wrong = [
        f"{service.where}: services.{service.name}.ports: port {port} is that of the cluster's ingress\n"
        "    → choose another, or write x-ingress instead"
        for service in stack.services
        for port in sorted({p.published for p in service.container.ports if p.protocol == "tcp"} & taken)
    ]
    for claim in claims_of([stack]):
        at = f"{claim.rule.where}: services.{claim.service}.x-ingress: port {claim.rule.tcp}"
        if claim.rule.tcp in own:
            wrong.append(f"{at} is for http and https\n    → choose another")
        elif claim.rule.tcp and (other := published.get(claim.rule.tcp)):
            wrong.append(f"{at} is published by service {other.name} already ({other.where})\n    → choose another")
    return wrong


def gateless(stack: Stack) -> list[str]:
    """What *stack* wants of HAProxys, where the cluster has none."""
    return [
        f"{c.rule.where}: services.{c.service}.x-ingress.{'tcp' if c.rule.tcp else 'rate_limit'}: the ingress runs without "
        "HAProxy, which does that\n    → `pystack ingress up --haproxy`, with its other options as before"
        for c in claims_of([stack])
        if c.rule.tcp or c.rule.rate
    ]


def unseen(stack: Stack, present: StackRecord | None) -> list[str]:
    """What of *stack* has no effect on its update from *present*, where the cluster has no ingress that sees requests."""
    there = {s.name for s in present.stack.services} if present else set()
    return [
        f"{service.where}: services.{service.name}.x-update.abort_on: nobody sees requests: the cluster has no ingress\n"
        "    → `pystack ingress up`, or leave error_rate and p99 out"
        for service in stack.services
        if service.name in there and service.staged and service.staged.abort_on != AbortOn()
    ]


def issuer_of(rule: IngressRule, settings: IngressSettings) -> str:
    """Who certifies the host of *rule*: acme, internal, manual, off for nobody, or passthrough for its service itself."""
    if rule.tcp:
        return "passthrough"
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
    grouped: dict[str, list[Claim]] = {}
    owners: dict[str, str] = {}
    for claim in claims:
        place = claim.rule.place
        if owners.setdefault(place, claim.stack) == claim.stack:  # the other stack was there first: `plan` says so
            grouped.setdefault(place, []).append(claim)
    sites = []
    for group in grouped.values():
        answering = []
        for claim in group:
            known = by_service.get((claim.stack, claim.service), [])
            ready = next((found for names in backends if (found := [t for t in known if t.name in names])), [])
            reached = [(t, d) for t in ready if (d := _dial(node, t, claim.rule.port, networks, underlays))]
            weights = connection_weights([t for t, _ in reached]) or (1,) * len(reached)
            answering.append((claim.rule.weight, [Upstream(d, w, t.name) for (t, d), w in zip(reached, weights, strict=True)]))
        idle = tuple(f"{c.stack}/{c.service}" for c in group if c.idle and not c.rule.tcp)
        rule = group[0].rule
        sites.append(Site(rule=rule, tls=issuer_of(rule, settings), upstreams=_shares(answering), idle=idle))
    return sorted(sites, key=lambda s: (s.rule.host.startswith("*."), s.rule.host, -len(s.rule.path), s.rule.path))


def nodes_apart(claims: Iterable[Claim], tasks: Iterable[Task], networks: Mapping[str, Network]) -> set[str]:
    """The nodes whose proxies reach a task of *claims* in another way than all others do: those with one on the node's own
    network, or on a bridge. The proxies of all other nodes answer the same."""
    claimed = {(c.stack, c.service) for c in claims}
    return {
        t.node
        for t in tasks
        if (t.stack, t.service) in claimed
        and (
            t.container.network_mode == "host"
            or ((found := networks.get(ingress_network(t, networks))) is not None and found.driver == "bridge")
        )
    }


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


def _shares(answering: Sequence[tuple[int, Sequence[Upstream]]]) -> tuple[Upstream, ...]:
    """Shares by which each service gets what its weight says, however many tasks it has, and of that each task what its own
    shares say. Where only services of weight 0 have tasks, they answer all the same."""
    live = [(weight, ups) for weight, ups in answering if ups and weight] or [(1, ups) for _, ups in answering if ups]
    parts = [(Fraction(weight * up.shares, sum(u.shares for u in ups)), up) for weight, ups in live for up in ups if up.shares]
    if not parts:
        return ()
    exact = Fraction(math.gcd(*(p.numerator for p, _ in parts)), math.lcm(*(p.denominator for p, _ in parts)))
    unit = max(exact, sum((p for p, _ in parts), Fraction()) / MOST_SHARES)
    return tuple(up._replace(shares=max(1, round(part / unit))) for part, up in parts)
