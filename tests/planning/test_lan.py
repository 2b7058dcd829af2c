"""Addresses on a LAN are given by one hand: over nodes, stacks and rounds no two tasks ever hold the same one."""

from __future__ import annotations

import random

from agent.contract.container import Attachment, Container
from agent.contract.network import Subnet
from agent.contract.status import NodeInfo
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.node import Node
from orchestrator.planning.expand import expand
from orchestrator.planning.state import State
from orchestrator.stackfile.model import Service, Stack, StackNetwork

NODES = tuple(
    Node(name=f"n{i}", id=f"n{i}", underlay=f"192.168.7.{i}", info=NodeInfo(cpus=64, memory=1 << 40, links=("eth0",)))
    for i in (1, 2, 3)
)


def stack_of(*replicas: int) -> Stack:
    return Stack(
        name="s",
        services=tuple(
            Service(
                name=f"w{n}",
                container=Container(image="x", attachments=(Attachment(network="s_lan"),)),
                replicas=count,
                where=f"w{n}",
            )
            for n, count in enumerate(replicas)
        ),
        networks=(
            StackNetwork(
                key="lan",
                name="s_lan",
                driver="macvlan",
                options=(("parent", "eth0"),),
                subnets=(Subnet(cidr="192.168.7.0/24", ip_range="192.168.7.0/26", reserved=("192.168.7.9",)),),
            ),
        ),
    )


def test_a_thousand_rounds_double_no_address() -> None:
    dice = random.Random(7)
    context = PlacementContext(nodes=NODES, ready=frozenset(n.name for n in NODES), local="n1")
    state, moved = State(), 0
    for _ in range(1000):
        before = {t.name: t.container.attachments[0].ipv4 for t in state.tasks}
        state = expand(stack_of(*(dice.randrange(20) for _ in range(3))), state, context=context)
        held = {t.name: t.container.attachments[0].ipv4 for t in state.tasks}
        assert len(set(held.values())) == len(held)
        assert not set(held.values()) & {"192.168.7.0", "192.168.7.1", "192.168.7.2", "192.168.7.3", "192.168.7.9"}
        assert all(held[name] == address for name, address in before.items() if name in held)
        moved += len(held.keys() - before.keys())
    assert moved > 5000
