"""What constraints mean on a node: Swarm's verdicts, and those of the operators that x-placement adds."""

from __future__ import annotations

import pytest

from agent.contract.status import NodeInfo
from orchestrator.placement.constraints import matches
from orchestrator.placement.node import Node
from orchestrator.stackfile.constraints import parse, parse_extended

NODE = Node(
    name="alpha",
    id="abc123",
    target="root@10.0.0.7",
    underlay="10.0.0.7",
    labels=(("Rack", "R1"), ("ssd", "yes"), ("zone", "East")),
    info=NodeInfo(hostname="Alpha", os="linux", arch="x86_64", cpus=8, memory=16 << 30, labels=(("driver", "zfs"),)),
)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("node.labels.zone == east", True),
        ("node.labels.zone==EAST", True),
        ("node.labels.zone != east", False),
        ("node.labels.zone != west", True),
        ("node.labels.zone == ea*", False),
        ("node.labels.rack == R1", False),
        ("node.labels.Rack == r1", True),  # a label's key is case sensitive
        ("node.labels.none == x", False),
        ("node.labels.none != x", True),
        ("engine.labels.driver == ZFS", True),
        ("engine.labels.other != zfs", True),
        ("node.hostname == alpha", True),
        ("NODE.HOSTNAME == alpha", True),
        ("node.id == abc123", True),
        ("node.role == worker", True),
        ("node.role == manager", False),
        ("node.role != manager", True),
        ("node.platform.os == linux", True),
        ("node.platform.arch == amd64", True),
        ("node.platform.arch == x86_64", False),
        ("node.platform.arch != arm64", True),
        ("node.ip == 10.0.0.7", True),
        ("node.ip == 10.0.0.0/24", True),
        ("node.ip != 10.0.0.0/24", False),
        ("node.ip == 10.0.1.0/24", False),
        ("node.ip != 10.0.1.7", True),
        ("node.ip == 10.0.0.300", False),
        ("node.ip != 10.0.0.300", False),  # malformed fails whatever the operator
        ("node.unknown == x", False),
        ("node.unknown != x", False),  # so does an unknown key
    ],
)
def test_verdicts(text: str, verdict: bool) -> None:
    assert matches(parse(text), NODE) is verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("node.labels.zone in (west, east)", True),
        ("node.labels.zone in (west)", False),
        ("node.labels.zone not in (west)", True),
        ("node.labels.ssd exists", True),
        ("node.labels.ssd not exists", False),
        ("node.labels.gpu not exists", True),
        ("node.hostname matches [Aa]lp.*", True),
        ("node.hostname matches alp", False),
        ("node.cpus >= 8", True),
        ("node.cpus > 8", False),
        ("node.memory >= 17179869184", True),
        ("node.cpus < 9", True),
        ("node.labels.zone >= 3", False),
        ("node.labels.zone == east", True),
    ],
)
def test_extended(text: str, verdict: bool) -> None:
    assert matches(parse_extended(text), NODE) is verdict


def test_no_address_is_in_no_network() -> None:
    bare = Node(name="x", id="x")
    assert not matches(parse("node.ip == 10.0.0.0/8"), bare)
    assert matches(parse("node.ip != 10.0.0.0/8"), bare)
