"""What a lab may be, and which machines it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.contract.processes import start_time
from orchestrator.errors import PystackError
from orchestrator.lab import lab
from orchestrator.lab.lab import Lab, Machine
from orchestrator.lab.up import check, machines

REFUSED: dict[str, tuple[str, int, Mapping[str, Mapping[str, str]], int, bool, int, str]] = {
    "a name in capitals": ("Lab", 1, {}, 1, False, 0, "lower case letters"),
    "a name that is too long": ("a" * 22, 1, {}, 1, False, 0, "at most 21"),
    "no node": ("a", 0, {}, 1, False, 0, "--nodes 0: a lab has 1 to 200 nodes"),
    "too many nodes": ("a", 201, {}, 1, False, 0, "--nodes 201"),
    "a label of a node that is not there": ("a", 2, {"n3": {"a": "b"}}, 1, False, 0, "--label n3: a lab of 2 has no such node"),
    "more servers than nodes": ("a", 2, {}, 3, True, 0, "--servers 3: use 1 to the number of nodes, 2"),
    "several servers without etcd": ("a", 3, {}, 3, False, 0, "several servers need --store etcd"),
    "a disk that is too small": ("a", 1, {}, 1, False, 1 << 20, "--disk 1048576: use at least 64m"),
}


@pytest.mark.parametrize(("name", "nodes", "labels", "servers", "etcd", "disk_size", "message"), REFUSED.values(), ids=REFUSED)
def test_a_lab_that_cannot_be(
    name: str,
    nodes: int,
    labels: Mapping[str, Mapping[str, str]],
    servers: int,
    etcd: bool,
    disk_size: int,
    message: str,
) -> None:
    with pytest.raises(PystackError, match=message):
        check(name, nodes, labels, servers=servers, etcd=etcd, disk_size=disk_size)


def test_a_lab_that_can_be() -> None:
    check("a-1", 200, {"n200": {"zone": "east"}}, servers=3, etcd=True, disk_size=64 << 20)


def test_the_machines_of_a_lab() -> None:
    made = machines(3, 2)
    assert [(m.name, m.role, m.address) for m in made.values()] == [
        ("switch", "switch", "127.0.0.1"),
        ("outside", "outside", "10.99.0.254"),
        ("n1", "server", "10.99.0.1"),
        ("n2", "server", "10.99.0.2"),
        ("n3", "node", "10.99.0.3"),
    ]
    assert [m.name for m in Lab(name="a", machines=made).servers] == ["n1", "n2"]
    assert not any(m.alive() for m in made.values())


def test_a_machine_that_a_lab_does_not_have() -> None:
    with pytest.raises(PystackError, match="lab a has no machine n9; it has: outside, n1"):
        Lab(name="a", machines=machines(1, 1)).machine("n9")
    with pytest.raises(PystackError, match="has no machine switch"):
        Lab(name="a", machines=machines(1, 1)).machine("switch")


def test_a_lab_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "LABS", tmp_path)
    with pytest.raises(PystackError, match="make one with `pystack lab up`"):
        lab.find("a")
    (tmp_path / "a").mkdir()
    kept = Lab(name="a", machines={"n1": Machine(name="n1", role="server", address="10.99.0.1")})
    kept.save()
    assert lab.find("a") == kept
    with pytest.raises(PystackError, match="no lab is called b; there are: a"):
        lab.find("b")


def test_the_start_time_tells_processes_of_one_pid_apart() -> None:
    own = start_time(1)
    assert own >= 0
    assert Machine(name="n1", role="node", address="", pid=1, started=own + 1).alive() is False
    assert start_time(1 << 30) == 0
