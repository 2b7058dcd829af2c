"""Each filter case by case, and what holds for all of them whatever the cluster and the request."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.container import DeviceRequest
from agent.contract.status import NodeInfo
from orchestrator.placement.columns import Columns, PlainColumns
from orchestrator.placement.cost import cost
from orchestrator.placement.exact import solve
from orchestrator.placement.feasibility import (
    STATIC_FILTERS,
    UNLIMITED,
    Feasibility,
    capacity_for,
    explain_nodes,
    static_mask,
)
from orchestrator.placement.filters import FILTERS
from orchestrator.placement.filters.base import AffinityFilter, Filter, Reason, ResourceFilter
from orchestrator.placement.greedy import TaskGroup
from orchestrator.placement.node import Node
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest, PortKey
from orchestrator.placement.vectors import VectorColumns
from orchestrator.stackfile.model import Placement, Reserves

BY_NAME = {f.name: f for f in FILTERS}
GPU = DeviceRequest(count=1, capabilities=("gpu",))


def request(service: str = "s/web", **fields: Any) -> PlacementRequest:
    return PlacementRequest(service=service, **fields)


def node(number: int = 0, *, info: dict[str, Any] | None = None, **fields: Any) -> Node:
    known = {"hostname": f"n{number}", "cpus": 4.0, "memory": 8 << 30, **(info or {})}
    return Node(name=f"n{number}", id=f"id{number}", info=NodeInfo(**known), **fields)


def table_of(nodes: Sequence[Node], columns: Columns, there: Sequence[tuple[PlacementRequest, int]] = ()) -> NodeTable:
    """All nodes answer but those called down."""
    table = NodeTable(nodes, {n.name for n in nodes if ("down", "") not in n.labels}, columns)
    for one, row in there:
        table.commit(one, row)
    return table


def placing(**fields: Any) -> PlacementRequest:
    return request(placement=Placement(**fields))


def reserving(**fields: Any) -> PlacementRequest:
    return request(reserves=Reserves(**fields))


CASES: dict[str, tuple[str, PlacementRequest, Node, list[PlacementRequest], bool, str]] = {
    "a node that answers": ("ready", request(), node(), [], True, "answers"),
    "a node that is silent": ("ready", request(), node(labels=(("down", ""),)), [], False, "does not answer"),
    "a node that takes tasks": ("availability", request(), node(), [], True, "is active"),
    "a node that is drained": ("availability", request(), node(availability="drain"), [], False, "is drain"),
    "a disk with room": ("disk", request(), node(), [], True, "its disk has room"),
    "a disk without room": (
        "disk",
        request(),
        node(info={"problem": "the disk of /s has less left than its reserve of 9 MiB: make room"}),
        [],
        False,
        "the disk of /s has less left than its reserve of 9 MiB: make room",
    ),
    "a label that is equal": (
        "constraint",
        placing(constraints=("node.labels.zone == a",)),
        node(labels=(("zone", "a"),)),
        [],
        True,
        "node.labels.zone == a (it has a)",
    ),
    "a label that is not there": (
        "constraint",
        placing(constraints=("node.labels.zone == a",)),
        node(),
        [],
        False,
        "node.labels.zone == a (it has none)",
    ),
    "an address outside of a subnet": (
        "constraint",
        placing(constraints=("node.ip == 10.1.0.0/16",)),
        node(underlay="10.2.0.1"),
        [],
        False,
        "node.ip == 10.1.0.0/16 (it has 10.2.0.1)",
    ),
    "enough cores by a comparison": (
        "x-placement",
        placing(extended=("node.cpus >= 4",)),
        node(),
        [],
        True,
        "node.cpus >= 4 (it has 4)",
    ),
    "a value that is not in a list": (
        "x-placement",
        placing(extended=("node.labels.zone in (a, b)",)),
        node(labels=(("zone", "c"),)),
        [],
        False,
        "node.labels.zone in (a, b) (it has c)",
    ),
    "a taint that is tolerated": (
        "taint",
        placing(tolerations=("gpu",)),
        node(taints=("gpu:NoSchedule",)),
        [],
        True,
        "tolerates gpu:NoSchedule",
    ),
    "one of two taints that is not": (
        "taint",
        placing(tolerations=("gpu",)),
        node(taints=("gpu:NoSchedule", "old:NoExecute")),
        [],
        False,
        "old:NoExecute",
    ),
    "the node that has the volume": (
        "bound",
        request(pinned="n0", pinned_by="volume db is"),
        node(),
        [],
        True,
        "volume db is on n0",
    ),
    "a node that has not": ("bound", request(pinned="n1", pinned_by="volume db is"), node(), [], False, "volume db is on n1"),
    "a link that is there": (
        "parent",
        request(parents=(("eth0", "lan"),)),
        node(info={"links": ("eth0",)}),
        [],
        True,
        "network lan is on eth0",
    ),
    "a link that can be made": (
        "parent",
        request(parents=(("eth0.7", "lan"),)),
        node(info={"links": ("eth0",), "features": ("vlan",)}),
        [],
        True,
        "network lan is on eth0.7",
    ),
    "a link that cannot": (
        "parent",
        request(parents=(("eth0.7", "lan"),)),
        node(info={"links": ("eth0",)}),
        [],
        False,
        "network lan is on eth0.7; it has eth0, and a kernel without VLANs (CONFIG_VLAN_8021Q)",
    ),
    "a driver that is installed": (
        "driver",
        request(drivers=(("weave", "net"),)),
        node(info={"drivers": ("weave",)}),
        [],
        True,
        "network net needs the driver weave",
    ),
    "a driver that is not": (
        "driver",
        request(drivers=(("weave", "net"),)),
        node(),
        [],
        False,
        "network net needs the driver weave",
    ),
    "a node with WireGuard": (
        "encryption",
        request(encrypted=("net",)),
        node(info={"features": ("wireguard",)}),
        [],
        True,
        "network net needs WireGuard",
    ),
    "a node without": (
        "encryption",
        request(encrypted=("net",)),
        node(),
        [],
        False,
        "network net needs WireGuard: it is neither in the kernel nor is wireguard-go installed",
    ),
    "a node that can limit": (
        "bandwidth",
        request(limited=("net",)),
        node(info={"features": ("ifb",)}),
        [],
        True,
        "x-bandwidth on network net needs the kernel's ifb",
    ),
    "a node that cannot": (
        "bandwidth",
        request(limited=("net",)),
        node(),
        [],
        False,
        "x-bandwidth on network net needs the kernel's ifb (CONFIG_IFB), which it has not",
    ),
    "a disk that keeps sizes": (
        "size",
        request(sized=("volume data",)),
        node(info={"features": ("project-quota",)}),
        [],
        True,
        "the size of volume data needs ext4 or xfs mounted with prjquota",
    ),
    "a disk that does not": (
        "size",
        request(sized=("the writable layer",)),
        node(),
        [],
        False,
        "the size of the writable layer needs ext4 or xfs mounted with prjquota, which its disk is not",
    ),
    "a device that is there": (
        "devices",
        request(devices=(GPU,)),
        node(info={"devices": ("acme.com/gpu=0",)}),
        [],
        True,
        "asks for gpu (1 asked for); it has acme.com/gpu=0 (CDI files in /etc/cdi)",
    ),
    "a device of another kind": (
        "devices",
        request(devices=(GPU,)),
        node(info={"devices": ("acme.com/nic=0",)}),
        [],
        False,
        "asks for gpu (1 asked for); it has acme.com/nic (CDI files in /etc/cdi)",
    ),
    "cores that are free": ("cpus", reserving(cpus=1.5), node(), [], True, "asks 1.5, 4 of 4 free"),
    "cores that others have": ("cpus", reserving(cpus=1.5), node(), [reserving(cpus=3)], False, "asks 1.5, 1 of 4 free"),
    "memory that is free": ("memory", reserving(memory=8 << 30), node(), [], True, "asks 8.0 GiB, 8.0 GiB of 8.0 GiB free"),
    "memory that others have": (
        "memory",
        reserving(memory=1 << 30),
        node(),
        [reserving(memory=7 << 30), reserving(memory=512 << 20)],
        False,
        "asks 1.0 GiB, 512.0 MiB of 8.0 GiB free",
    ),
    "a thing that is there": (
        "resource",
        reserving(generic=(("gpu", 2),)),
        node(labels=(("resource.gpu", "2"),)),
        [],
        True,
        "asks 2 gpu, 2 free",
    ),
    "a thing that others have": (
        "resource",
        reserving(generic=(("gpu", 2),)),
        node(labels=(("resource.gpu", "2"),)),
        [reserving(generic=(("gpu", 1),))],
        False,
        "asks 2 gpu, 1 free",
    ),
    "a port that is free": ("port", request(ports=frozenset({(80, "tcp")})), node(), [], True, "80/tcp is free"),
    "a port that another has": (
        "port",
        request(ports=frozenset({(80, "tcp")})),
        node(),
        [request("s/other", ports=frozenset({(80, "tcp")}))],
        False,
        "80/tcp is taken",
    ),
    "room for one more": ("max_replicas_per_node", placing(max_per_node=2), node(), [request()], True, "has 1 of at most 2"),
    "as many as it may have": (
        "max_replicas_per_node",
        placing(max_per_node=1),
        node(),
        [request()],
        False,
        "has 1 of at most 1",
    ),
    "near one that is there": ("near", request(near=("s/db",)), node(), [request("s/db")], True, "db is there"),
    "near one that is not": ("near", request(near=("s/db",)), node(), [], False, "db is not there"),
    "away from one that is not there": ("away", request(away=("s/db",)), node(), [], True, "db is not there"),
    "away from one that is": ("away", request(away=("s/db",)), node(), [request("s/db")], False, "db is there"),
}


def test_a_task_stays_where_it_is_whatever_the_disk_has_left() -> None:
    table = table_of([node(info={"problem": "full"})], PlainColumns())
    assert [list(BY_NAME["disk"].passes(request(staying=staying), table)) for staying in (True, False)] == [[True], [False]]


@pytest.mark.parametrize("columns", [PlainColumns(), VectorColumns()], ids=["plain", "vector"])
@pytest.mark.parametrize(("name", "one", "where", "there", "ok", "detail"), CASES.values(), ids=CASES)
def test_filter(
    name: str, one: PlacementRequest, where: Node, there: list[PlacementRequest], ok: bool, detail: str, columns: Columns
) -> None:
    table = table_of([where], columns, [(other, 0) for other in there])
    assert BY_NAME[name].explain(one, table, 0) == [Reason(filter=name, ok=ok, detail=detail)]
    assert [*BY_NAME[name].passes(one, table)] == [ok]


def test_each_filter_has_a_case_that_passes_and_one_that_does_not() -> None:
    assert len(BY_NAME) == len(FILTERS)
    assert {(name, ok) for name, _, _, _, ok, _ in CASES.values()} == {(f.name, ok) for f in FILTERS for ok in (True, False)}


def some(*values: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    """A subset of *values* in their order, in one draw; half of the time none of them."""
    subsets = [c for size in range(1, len(values) + 1) for c in itertools.combinations(values, size)]
    return st.sampled_from([()] * len(subsets) + subsets)


SERVICES = ("s/a", "s/b", "s/c", "s/d")
NODES = st.lists(
    st.builds(
        Node,
        name=st.just(""),
        id=st.just(""),
        underlay=st.sampled_from(["", "10.1.0.1", "10.2.0.1"]),
        labels=some(("zone", "a"), ("rack", "1"), ("resource.gpu", "2"), ("resource.fpga", "none"), ("down", "")),
        taints=some("gpu=h:NoSchedule", "old:NoExecute"),
        availability=st.sampled_from(["active", "active", "active", "pause", "drain"]),
        info=st.builds(
            NodeInfo,
            cpus=st.sampled_from([1.0, 4.0, 16.0]),
            memory=st.sampled_from([1 << 30, 32 << 30]),
            links=some("eth0", "eth1"),
            drivers=some("weave"),
            features=some("wireguard", "vlan"),
            devices=some("acme.com/gpu=0", "acme.com/gpu=all"),
        ),
    ),
    min_size=1,
    max_size=6,
).map(lambda nodes: [msgspec.structs.replace(n, name=f"n{i}", id=f"id{i}") for i, n in enumerate(nodes)])
REQUESTS = st.sampled_from(SERVICES).flatmap(
    lambda service: st.builds(
        PlacementRequest,
        service=st.just(service),
        placement=st.builds(
            Placement,
            constraints=some("node.labels.zone == a", "node.labels.rack != 1", "node.ip == 10.1.0.0/16"),
            extended=some("node.labels.rack exists", "node.cpus >= 4"),
            spread=some("node.labels.zone", "node.labels.rack"),
            max_per_node=st.sampled_from([0, 0, 1, 2]),
            tolerations=some("gpu", "*"),
        ),
        reserves=st.builds(
            Reserves,
            cpus=st.sampled_from([0.0, 0.0, 0.5, 3.0]),
            memory=st.sampled_from([0, 0, 1 << 28, 5 << 30]),
            generic=some(("gpu", 1), ("fpga", 1)),
        ),
        ports=st.sampled_from([frozenset[PortKey](), frozenset({(80, "tcp")}), frozenset({(80, "tcp"), (53, "udp")})]),
        near=some(*(s for s in SERVICES if s != service)),
        away=some(*(s for s in SERVICES if s != service)),
        pinned=st.sampled_from(["", "", "", "n0", "gone"]),
        pinned_by=st.just("volume x is"),
        parents=some(("eth0", "lan"), ("eth1.5", "vlan")),
        drivers=some(("weave", "net")),
        encrypted=some("net"),
        limited=some("net"),
        devices=some(GPU, DeviceRequest(ids=("7",))),
        staying=st.booleans(),
    )
)
THERE = st.lists(st.tuples(REQUESTS, st.integers(0, 5)), max_size=4)


def both(nodes: Sequence[Node], there: Sequence[tuple[PlacementRequest, int]]) -> tuple[NodeTable, NodeTable]:
    """The same table with lists and with arrays."""
    placed = [(one, row % len(nodes)) for one, row in there]
    return table_of(nodes, PlainColumns(), placed), table_of(nodes, VectorColumns(), placed)


@given(NODES, THERE, REQUESTS)
@settings(max_examples=80, deadline=None)
def test_a_node_passes_if_and_only_if_nothing_is_said_against_it(
    nodes: list[Node], there: list[tuple[PlacementRequest, int]], one: PlacementRequest
) -> None:
    for table in both(nodes, there):
        for each in FILTERS:
            against = [[f for f in each.explain(one, table, row) if not f.ok] for row in range(len(nodes))]
            assert [bool(ok) for ok in each.passes(one, table)] == [not a for a in against], each.name
        words = explain_nodes(one, table)
        assert [bool(ok) for ok in Feasibility(one, table).mask()] == [all(f.ok for f in w) for w in words]
        static = {f.name for f in STATIC_FILTERS}
        assert [bool(ok) for ok in static_mask(one, table)] == [all(f.ok for f in w if f.filter in static) for w in words]


@given(NODES, THERE, REQUESTS)
@settings(max_examples=80, deadline=None)
def test_lists_and_arrays_say_the_same(
    nodes: list[Node], there: list[tuple[PlacementRequest, int]], one: PlacementRequest
) -> None:
    plain, vector = both(nodes, there)
    for each in FILTERS:
        assert [*each.passes(one, plain)] == [*each.passes(one, vector)], each.name
        for row in range(len(nodes)):
            assert each.explain(one, plain, row) == each.explain(one, vector, row)
    assert cost(one, plain).tolist() == cost(one, vector).tolist()
    assert capacity_for(one, plain).tolist() == capacity_for(one, vector).tolist()


@given(NODES, THERE, REQUESTS)
@settings(max_examples=50, deadline=None)
def test_a_static_filter_does_not_see_tasks(
    nodes: list[Node], there: list[tuple[PlacementRequest, int]], one: PlacementRequest
) -> None:
    for table in both(nodes, there):
        for each in STATIC_FILTERS:
            assert [*each.passes(one, table)] == [*each.passes(one, table_of(nodes, table.columns))], each.name


@given(NODES, THERE, REQUESTS)
@settings(max_examples=50, deadline=None)
def test_as_many_copies_fit_as_there_is_capacity(
    nodes: list[Node], there: list[tuple[PlacementRequest, int]], one: PlacementRequest
) -> None:
    enough = 40
    for table in both(nodes, there):
        feasibility = Feasibility(one, table)
        for row, capacity in enumerate(capacity_for(one, table).tolist()):
            if not feasibility.mask()[row]:
                continue
            fitted = 0
            while fitted < enough and feasibility.mask()[row]:
                table.commit(one, row)
                fitted += 1
            assert fitted == min(capacity, enough)
            assert capacity <= UNLIMITED


@given(
    NODES.filter(lambda nodes: len(nodes) > 1),
    st.lists(st.builds(TaskGroup, REQUESTS, st.integers(1, 3)), min_size=1, max_size=3, unique_by=lambda g: g.request.service),
)
@settings(max_examples=30, deadline=None)
def test_each_copy_of_an_exact_placement_passes_beside_the_others(nodes: list[Node], groups: list[TaskGroup]) -> None:
    table = table_of(nodes, VectorColumns())
    found = solve(table, groups)
    if found is None:
        return
    for group, rows in zip(groups, found, strict=True):
        assert len(rows) == group.count
        for row in rows:
            table.commit(group.request, row)
    for group, rows in zip(groups, found, strict=True):
        for row in rows:
            table.commit(group.request, row, -1)
            against = [f for f in explain_nodes(group.request, table)[row] if not f.ok]
            assert against == []
            table.commit(group.request, row)


def test_a_node_that_falls_silent_is_seen_at_once() -> None:
    for table in both([node(0), node(1)], []):
        feasibility = Feasibility(request(), table)
        assert [*feasibility.mask()] == [True, True]
        table.ready[1] = False
        assert [*Feasibility(request(), table).mask()] == [True, False]


def test_each_changing_filter_is_known_to_the_exact_solver() -> None:
    changing: list[Filter[Any]] = [f for f in FILTERS if not f.static]
    assert [f.name for f in changing if not isinstance(f, (ResourceFilter, AffinityFilter))] == []
