"""Replicas with names and volumes of their own: what the file says, and what comes of it. Pure."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from orchestrator.placement.context import PlacementContext
from orchestrator.placement.node import Node
from orchestrator.planning.expand import expand
from orchestrator.planning.manifests import Manifests
from orchestrator.planning.state import State
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.model import Stack
from orchestrator.stackfile.problem import StackFileError

FILE = """
services:
  db:
    image: i
    x-stable: true
    deploy: {replicas: 3}
    volumes: [data:/data, all:/all]
volumes: {data: {}, all: {driver: nfs, driver_opts: {server: s, path: /p}}}
"""


def stack(folder: Path, text: str = FILE) -> Stack:
    (folder / "stack.yml").write_text(text)
    return load(Options(files=(str(folder / "stack.yml"),), project_name="t"), {}).stack


def test_each_replica_has_its_name_and_its_volumes(tmp_path: Path) -> None:
    found = expand(stack(tmp_path), State())
    assert [t.container.hostname for t in found.tasks] == ["db-1", "db-2", "db-3"]
    assert [t.container.attachments[0].aliases for t in found.tasks] == [("db", f"db-{n}", f"db-{n}.db") for n in range(1, 4)]
    assert [m.source for t in found.tasks for m in t.container.mounts] == [
        name for n in range(1, 4) for name in (f"t_data-{n}", "t_all")
    ]
    assert sorted(v.name for v in found.volumes) == ["t_all", "t_data-1", "t_data-2", "t_data-3"]


def test_a_replica_stays_where_its_volume_is(tmp_path: Path) -> None:
    one = stack(tmp_path)
    nodes = tuple(Node(name=n, id=n) for n in ("n1", "n2", "n3"))
    context = PlacementContext(nodes=nodes, ready=frozenset({"n1", "n2", "n3"}), local="n1")
    first = expand(one, State(), context=context)
    homes = {v.name: v.node for v in first.volumes if "data" in v.name}
    assert homes == {f"t_data-{t.index}": t.node for t in first.tasks}
    fewer = msgspec.structs.replace(context, homes=homes, ready=frozenset({"n2", "n3"}))
    again = expand(one, State(), context=fewer)
    assert {t.name: t.node for t in again.tasks} == {t.name: t.node for t in first.tasks}
    assert [t.name for t in again.tasks] == ["t-db-1", "t-db-2", "t-db-3"]


def test_a_replicas_names_lead_to_it_and_not_to_the_address_of_all(tmp_path: Path) -> None:
    nodes = tuple(Node(name=n, id=n, underlay=f"10.9.0.{n[1]}") for n in ("n1", "n2"))
    found = expand(stack(tmp_path), State(), context=PlacementContext(nodes=nodes, ready=frozenset({"n1", "n2"}), local="n1"))
    networks, volumes = {n.name: n for n in found.networks}, {v.name: v for v in found.volumes}
    made = Manifests(nodes, 1, networks, volumes, found.tasks, [{t.name for t in found.tasks}]).of("n1")
    (address,) = made.service_addresses
    assert address.names == ("db",)
    assert len(address.backends) == 3
    few = [msgspec.structs.replace(t, share=10.0 if t.index == 3 else -1.0) for t in found.tasks]
    (address,) = Manifests(nodes, 1, networks, volumes, few, [{t.name for t in few}]).of("n1").service_addresses
    assert address.weights == (9000, 9000, 2000)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("other: {image: i, volumes: ['data:/d']}", "is one for each replica, and other has it too"),
        ("b: {image: i, x-stable: true, deploy: {update_config: {order: start-first}}}", "two replicas cannot have one volume"),
        ("b: {image: i, x-stable: true, x-scale: {max: 3, target: {cpu: 50%}}}", "which x-scale cannot give"),
        ("b: {image: i, x-stable: {start: ordered}, deploy: {mode: global}}", "is for replicas"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(StackFileError, match=said):
        stack(tmp_path, FILE.replace("volumes: {data", f"  {more}\nvolumes: {{data", 1))
