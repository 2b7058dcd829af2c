"""Finds faults in the cluster's networks: each node checks itself, and the nodes probe each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import msgspec

from agent.contract.network import VXLAN_PORT, Network
from agent.contract.status import NodeInfo
from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError
from orchestrator.server.clock_skew import MAX_SKEW_S
from orchestrator.server.cluster import Cluster
from orchestrator.server.members import NodeConnection

SMALL = 84
"""Bytes of an ordinary ping."""
OVERHEAD = {4: 50, 6: 70}
"""Bytes that VXLAN adds to a frame, by the underlay's IP version."""
TUNNEL_OVERHEAD = {4: 130, 6: 150}
"""The same for VXLAN over IPv6 inside WireGuard."""
FULL_MESH = 20
"""Up to so many nodes each probes each."""
NEIGHBOURS = 5
"""How many others each probes if there are more nodes."""


class Check(WireStruct, frozen=True, kw_only=True):
    """One check: *check* is the layer, *target* the node and the object on it. *repaired*: it was not well before."""

    check: str
    target: str
    ok: bool
    detail: str
    fix: str = ""
    repaired: bool = False


class _Echo(msgspec.Struct):
    seconds: float = 0.0
    problem: str = ""


async def diagnose(cluster: Cluster, networks: Mapping[str, Network], port: int, *, repair: bool) -> list[Check]:
    """All checks of all nodes, the failed ones first. With *repair*, after the nodes repaired what they can. New overlays get
    the UDP port *port*."""
    members = [m for _, m in sorted(cluster.members.items())]
    ready = [m for m in members if m.ready]
    out = [
        Check(
            check="node",
            target=m.node.name,
            ok=False,
            detail=f"it does not answer: {m.problem or 'no reason is known'}",
            fix=f"see that {m.node.target or 'its agent'} is up and reachable",
        )
        for m in members
        if not m.ready
    ]
    out += [
        Check(
            check="certificate",
            target=m.node.name,
            ok=False,
            detail=f"it is locked out: {m.node.copied}",
            fix=f"find out who has it, then `pystack node rm --force {m.node.name}`, and let it join again",
        )
        for m in members
        if m.node.copied
    ]
    for part in await asyncio.gather(*(_node(m, repair=repair) for m in ready)):
        out += part
    if repair:
        await cluster.measure_paths(ready)
        await cluster.deliver()
    out += await _reach(ready, networks)
    out += _other_ports(networks, port)
    return sorted(out, key=lambda c: c.ok)


def _other_ports(networks: Mapping[str, Network], port: int) -> list[Check]:
    """Overlays that were made when another port was set: no fault, but firewalls must let theirs through too."""
    return [
        Check(
            check="vxlan-port",
            target=name,
            ok=True,
            detail=f"it was made with UDP port {network.vxlan_port} and keeps it, where `data_path_port` is {port}",
            fix=f"`pystack down` and `up` of stack {network.stack} give it the other",
        )
        for name, network in sorted(networks.items())
        if network.driver == "overlay" and network.vxlan_port != port
    ]


async def _node(member: NodeConnection, *, repair: bool) -> list[Check]:
    """The checks that the node makes of itself, and one of its clock."""
    name = member.node.name
    try:
        before = time.time()
        info = msgspec.convert(await member.client.call("GET", "/pystack/info"), NodeInfo)
        skew = info.clock - (before + time.time()) / 2
        found = msgspec.convert(
            await member.client.call("GET", "/pystack/doctor", params={"repair": "1"} if repair else {}), list[Check]
        )
    except PystackError as error:
        return [Check(check="node", target=name, ok=False, detail=str(error), fix=f"look into the log of the agent of {name}")]
    out = [msgspec.structs.replace(f, target=f"{name}: {f.target}") for f in found]
    late = abs(skew) > MAX_SKEW_S
    return [
        *out,
        Check(
            check="clock",
            target=name,
            ok=not late,
            detail=f"{skew:+.1f} s from the server's",
            fix="let both follow a time server" if late else "",
        ),
    ]


class _Question(msgspec.Struct, frozen=True):
    """The probes from one node to another: small and full packets, over the underlay and over an overlay that both carry."""

    asker: str
    asked: str
    probes: tuple[tuple[str, str, str, int], ...]
    """(kind, source, target, bytes)."""
    port: int
    """Where the overlay's packets go."""


async def _reach(members: Sequence[NodeConnection], networks: Mapping[str, Network]) -> list[Check]:
    members = [m for m in members if m.node.underlay]
    if len(members) < 2:
        return []

    async def ask(number: int) -> list[Check]:
        asker = members[number]
        others = [m for m in members if m is not asker]
        if len(members) > FULL_MESH:  # a ring: every node is probed, and none probes all
            others = [members[(number + step) % len(members)] for step in range(1, NEIGHBOURS + 1)]
        questions = [_question(asker, other, networks) for other in others]
        probes = [{"source": s, "target": t, "size": size} for q in questions for _, s, t, size in q.probes]
        try:
            echoes = iter(msgspec.convert(await asker.client.call("POST", "/pystack/probe", json=probes), list[_Echo]))
        except PystackError as error:
            return [Check(check="node", target=asker.node.name, ok=False, detail=str(error), fix="look into its agent's log")]
        return [_verdict(q, {kind: next(echoes) for kind, *_ in q.probes}) for q in questions]

    found = [check for part in await asyncio.gather(*map(ask, range(len(members)))) for check in part]
    wrong = [c for c in found if not c.ok]
    return wrong or [Check(check="underlay", target="nodes", ok=True, detail=f"{len(found)} paths carry small and full frames")]


def _question(asker: NodeConnection, asked: NodeConnection, networks: Mapping[str, Network]) -> _Question:
    own, far = asker.node, asked.node
    mtu, port = min(own.mtu, far.mtu), VXLAN_PORT
    probes = [("small", own.underlay, far.underlay, SMALL), ("full", own.underlay, far.underlay, mtu)]
    for network in networks.values():
        hosts = {h.name: h for h in network.hosts}
        if network.driver == "overlay" and own.name in hosts and far.name in hosts and hosts[own.name].ipv4:
            a, b = hosts[own.name].ipv4, hosts[far.name].ipv4
            asked_mtu = int(dict(network.options).get("com.docker.network.driver.mtu", 0))
            full = asked_mtu or mtu - (TUNNEL_OVERHEAD if network.encrypted else OVERHEAD)[6 if ":" in own.underlay else 4]
            probes += [("overlay-small", a, b, SMALL), ("overlay-full", a, b, full)]
            port = network.vxlan_port
            break
    return _Question(own.name, far.name, tuple(probes), port)


def _no_way(target: str, echoes: Mapping[str, _Echo]) -> Check:
    detail = f"no way between the nodes: {echoes['small'].problem}"
    return Check(check="underlay", target=target, ok=False, detail=detail, fix="see to the network between them")


def _verdict(question: _Question, echoes: Mapping[str, _Echo]) -> Check:
    target = f"{question.asker} → {question.asked}"
    size = {kind: number for kind, _, _, number in question.probes}
    fine = {kind for kind, echo in echoes.items() if not echo.problem}
    if "overlay-small" in echoes and "overlay-small" not in fine:
        if "small" in fine:
            detail = f"the nodes reach each other, the overlay does not: UDP port {question.port} is blocked on the way"
            fix = f"let UDP {question.port} through both ways"
            return Check(check="vxlan-port", target=target, ok=False, detail=detail, fix=fix)
        return _no_way(target, echoes)
    if "overlay-full" in echoes and "overlay-full" not in fine:
        return Check(
            check="path-mtu",
            target=target,
            ok=False,
            detail=f"small frames pass on the overlay, those of "
            f"{size['overlay-full']} bytes do not: {echoes['overlay-full'].problem}",
            fix="raise the MTU on the way, or `pystack doctor --repair` makes the networks' smaller",
        )
    if "overlay-full" in fine:  # the overlay carries full frames; an underlay that answers no ping does no harm
        return Check(check="underlay", target=target, ok=True, detail=f"{echoes['overlay-full'].seconds * 1000:.2f} ms")
    if "small" not in fine:
        return _no_way(target, echoes)
    if "full" not in fine:
        return Check(
            check="path-mtu",
            target=target,
            ok=False,
            detail=f"small packets pass, those of {size['full']} bytes do not: {echoes['full'].problem}",
            fix="raise the MTU on the way",
        )
    return Check(check="underlay", target=target, ok=True, detail=f"{echoes['full'].seconds * 1000:.2f} ms")
