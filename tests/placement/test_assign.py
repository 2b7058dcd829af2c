"""Where the tasks of a stack go, and which of them stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from agent.contract.container import Attachment, Container, Mount, Port
from agent.contract.status import NodeInfo
from agent.contract.task import Task
from orchestrator.placement.arrange import reassign
from orchestrator.placement.assign import assign, is_eligible, place_oneoff
from orchestrator.placement.context import PlacementContext, request_of
from orchestrator.placement.explain import UnschedulableError, explain
from orchestrator.placement.node import Node
from orchestrator.placement.request import PlacementRequest, merge_requests
from orchestrator.stackfile.model import Placement, Reserves, Service, Stack, StackNetwork, StackVolume


def node(number: int, **fields: Any) -> Node:
    return Node(name=f"n{number}", id=f"id{number}", info=NodeInfo(hostname=f"n{number}", cpus=4, memory=8 << 30), **fields)


def context(*nodes: Node, **fields: Any) -> PlacementContext:
    return PlacementContext(nodes=nodes or (node(0), node(1)), ready={"n0", "n1", "n2"}, local="n0", **fields)


def service(name: str, replicas: int = 1, container: dict[str, Any] | None = None, **fields: Any) -> Service:
    return Service(name=name, replicas=replicas, container=Container(image="x", **(container or {})), where="f:1:1", **fields)


def stack(*services: Service, **fields: Any) -> Stack:
    return Stack(name="s", services=services, **fields)


def tasks(one: Stack) -> list[Task]:
    return [
        Task(name=f"s-{s.name}-{i}", stack="s", service=s.name, container=s.container, index=i, where=s.where)
        for s in one.services
        for i in range(1, s.replicas + 1)
    ]


def on(node: str, placed: Sequence[Task]) -> list[Task]:
    return [msgspec.structs.replace(t, node=node) for t in placed]


def nodes_of(placed: Sequence[Task]) -> dict[str, str]:
    return {t.name[2:]: t.node for t in placed}


BIG = service("web", reserves=Reserves(cpus=3))
STAYS = {
    "where it is": (service("web"), node(1), True),
    "on a node that takes no new tasks, whatever that has free": (
        service("web", reserves=Reserves(cpus=9)),
        node(1, availability="pause"),
        True,
    ),
    "not on one that is drained": (service("web"), node(1, availability="drain"), False),
    "on one with a taint against new tasks": (service("web"), node(1, taints=("gpu:NoSchedule",)), True),
    "not on one with a taint against all": (service("web"), node(1, taints=("gpu:NoExecute",)), False),
    "not where its constraint holds no more": (
        service("web", placement=Placement(constraints=("node.hostname == n0",))),
        node(1),
        False,
    ),
}


@pytest.mark.parametrize(("one", "there", "stays"), STAYS.values(), ids=STAYS)
def test_a_task_stays(one: Service, there: Node, stays: bool) -> None:
    wanted = stack(one)
    placed = assign(wanted, tasks(wanted), on("n1", tasks(wanted)), context(node(0), there))
    assert nodes_of(placed) == {"web-1": "n1" if stays else "n0"}


def test_a_task_goes_where_it_shall_move() -> None:
    wanted = stack(BIG)
    moving = context(moves={"s-web-1": "n1"})
    assert nodes_of(assign(wanted, tasks(wanted), on("n0", tasks(wanted)), moving)) == {"web-1": "n1"}


VOLUME = {"mounts": (Mount(kind="volume", source="data", target="/d"),)}
TIED = {
    "a volume of theirs": (VOLUME, VOLUME, {"volumes": (StackVolume(key="data", name="data"),)}),
    "a network of one host": (
        {"attachments": (Attachment(network="net"),)},
        {"attachments": (Attachment(network="net"),)},
        {"networks": (StackNetwork(key="net", name="net", driver="bridge"),)},
    ),
    "the namespaces of one": ({}, {"network_mode": "service:one"}, {}),
    "the volumes of one": ({}, {"volumes_from": ("one:ro",)}, {}),
    "a link": ({}, {"links": (("alias", "one"),)}, {}),
}


@pytest.mark.parametrize(("first", "second", "parts"), TIED.values(), ids=TIED)
def test_services_share_a_node_for(first: dict[str, Any], second: dict[str, Any], parts: dict[str, Any]) -> None:
    wanted = stack(service("one", container=first), service("two", container=second), **parts)
    assert len(set(nodes_of(assign(wanted, tasks(wanted), [], context())).values())) == 1
    apart = stack(service("one"), service("two"))
    assert len(set(nodes_of(assign(apart, tasks(apart), [], context())).values())) == 2


def test_what_shares_a_node_must_fit_there_together() -> None:
    wanted = stack(
        service("one", container=VOLUME, reserves=Reserves(cpus=3)),
        service("two", container=VOLUME, reserves=Reserves(cpus=2)),
        volumes=(StackVolume(key="data", name="data"),),
    )
    with pytest.raises(UnschedulableError, match="asks 5, 4 of 4 free"):
        assign(wanted, tasks(wanted), [], context())


def test_requests_of_tasks_that_share_a_node_are_added_up() -> None:
    one = PlacementRequest(
        service="s/one",
        placement=Placement(constraints=("node.role == worker",)),
        reserves=Reserves(cpus=1, memory=5, generic=(("gpu", 1),)),
        ports=frozenset({(80, "tcp")}),
        near=("s/two", "s/three"),
    )
    two = PlacementRequest(
        service="s/two",
        placement=Placement(constraints=("node.role == worker",), extended=("node.cpus >= 2",)),
        reserves=Reserves(cpus=2, memory=7, generic=(("fpga", 1), ("gpu", 1))),
        ports=frozenset({(81, "tcp")}),
        pinned="n1",
        pinned_by="volume x is",
    )
    assert merge_requests([one, two]) == PlacementRequest(
        service="s/one",
        tasks=2,
        placement=Placement(constraints=("node.role == worker",), extended=("node.cpus >= 2",)),
        reserves=Reserves(cpus=3, memory=12, generic=(("fpga", 1), ("gpu", 2))),
        ports=frozenset({(80, "tcp"), (81, "tcp")}),
        near=("s/three",),
        pinned="n1",
        pinned_by="volume x is",
    )


def test_tasks_that_share_a_node_tolerate_what_all_of_them_do() -> None:
    parts = [
        PlacementRequest(service="s/one", placement=Placement(tolerations=("gpu", "old"))),
        PlacementRequest(service="s/two", placement=Placement(tolerations=("slow", "gpu"))),
    ]
    assert merge_requests(parts).placement.tolerations == ("gpu",)


BOUND = {
    "a volume that has a node": (VOLUME, {"homes": {"data": "n1"}}, "n1"),
    "a bind mount of the server's host": ({"mounts": (Mount(kind="bind", source="/srv", target="/d"),)}, {}, "n0"),
    "a bind mount that each node has": ({"mounts": (Mount(kind="bind", source="/var/run/x", target="/d"),)}, {}, ""),
    "a path of each node, for a service of all": (
        {"mounts": (Mount(kind="bind", source="/", target="/host"),)},
        {"mode": "global", "project_paths": ("/srv/project/conf",)},
        "",
    ),
    "the project's path, for a service of all": (
        {"mounts": (Mount(kind="bind", source="/srv/project/conf", target="/conf"),)},
        {"mode": "global", "project_paths": ("/srv/project/conf",)},
        "n0",
    ),
    "a volume whatever bind mount follows": (
        {"mounts": (*VOLUME["mounts"], Mount(kind="bind", source="/srv", target="/b"))},
        {"homes": {"data": "n1"}},
        "n1",
    ),
    "a volume whatever bind mount is before": (
        {"mounts": (Mount(kind="bind", source="/srv", target="/b"), *VOLUME["mounts"])},
        {"homes": {"data": "n1"}},
        "n1",
    ),
}


@pytest.mark.parametrize(("container", "fields", "pinned"), BOUND.values(), ids=BOUND)
def test_a_service_is_bound_by(container: dict[str, Any], fields: dict[str, Any], pinned: str) -> None:
    own = {key: fields[key] for key in ("mode", "project_paths") if key in fields}
    one = service("web", container=container, **own)
    known = {key: value for key, value in fields.items() if key not in own}
    assert request_of(stack(one), one, context(**known)).pinned == pinned


def test_tasks_of_other_stacks_take_room() -> None:
    wanted = stack(BIG)
    other = Task(name="t-x-1", stack="t", service="x", container=Container(image="x"), index=1, node="n0")
    heavy = PlacementRequest(service="t/x", reserves=Reserves(cpus=2))
    placed = assign(wanted, tasks(wanted), [], context(others=[other], requests={"t/x": heavy}))
    assert nodes_of(placed) == {"web-1": "n1"}
    with pytest.raises(UnschedulableError) as refused:
        assign(wanted, tasks(wanted), [], context(node(0), others=[other], requests={"t/x": heavy}))
    assert str(refused.value).splitlines() == [
        "f:1:1: no node can take s-web-1:",
        "    n0: cpus: asks 3, 2 of 4 free",
        "    (proven: no placement of the whole stack exists)",
    ]


def test_a_task_of_a_job_that_has_ended_takes_no_room_until_it_is_to_run_again() -> None:
    wanted = stack(BIG)
    other = Task(name="t-x-1", stack="t", service="x", container=Container(image="x"), definition="a", node="n0")
    heavy = PlacementRequest(service="t/x", reserves=Reserves(cpus=2))
    there = {"others": [other], "requests": {"t/x": heavy}}
    assert nodes_of(assign(wanted, tasks(wanted), [], context(node(0), ended={"t-x-1": "a"}, **there))) == {"web-1": "n0"}
    with pytest.raises(UnschedulableError):
        assign(wanted, tasks(wanted), [], context(node(0), ended={"t-x-1": "b"}, **there))


def test_lost_tasks_are_placed_beside_those_that_stay() -> None:
    wanted = stack(service("web", 3, reserves=Reserves(cpus=2)))
    one, two, three = tasks(wanted)
    there = [*on("n0", [one]), *on("n1", [two]), *on("n2", [three])]
    silent = msgspec.structs.replace(context(node(0), node(1), node(2)), ready={"n0"})
    assert reassign(wanted, there, silent, {two.name, three.name}) == ({two.name: "n0"}, ())


def test_a_one_off_task_needs_no_port() -> None:
    port = {"ports": (Port(target=80, published=80, mode="host"),)}
    wanted = stack(service("web", container=port))
    there = on("n0", tasks(wanted))
    oneoff = Task(name="s-web-run", stack="s", service="web", container=Container(image="x"), where="f:1:1")
    assert place_oneoff(wanted, oneoff, there, context(node(0))).node == "n0"
    drained = context(node(0, availability="drain"))
    with pytest.raises(UnschedulableError, match="availability: is drain"):
        place_oneoff(wanted, oneoff, there, drained)


def test_a_service_on_every_node_waits_where_all_that_would_do_are_drained() -> None:
    one = service("agent", mode="global", placement=Placement(constraints=("node.hostname != n0",)))
    assert is_eligible(stack(one), one, context()) == ["n1"]
    assert is_eligible(stack(one), one, context(node(0), node(1, availability="drain"))) == []
    with pytest.raises(UnschedulableError, match=r"node\.hostname != n0"):
        is_eligible(stack(one), one, context(node(0)))


def test_why_lists_the_best_node_first_with_all_its_reasons() -> None:
    wanted = stack(service("web", 2, reserves=Reserves(cpus=3)))
    placed = assign(wanted, tasks(wanted), [], context())
    why = explain(wanted, "web", "s-web-1", placed, context())
    assert (why.node, [(c.node, c.feasible) for c in why.candidates]) == ("n0", [("n0", True), ("n1", False)])
    assert [(r.filter, r.ok, r.detail) for r in why.candidates[1].reasons] == [
        ("ready", True, "answers"),
        ("availability", True, "is active"),
        ("disk", True, "its disk has room"),
        ("cpus", False, "asks 3, 1 of 4 free"),
    ]
    assert [c.score for c in why.candidates] == [0, -1001]


PINNED = service("db", placement=Placement(constraints=("node.hostname == n1",)))


def test_a_task_that_can_be_nowhere_else_stays_on_its_silent_node_and_holds_nobody_up() -> None:
    one = stack(PINNED, service("web", 2))
    there = [*on("n1", tasks(one)[:1]), *on("n0", tasks(one)[1:])]
    silent = msgspec.structs.replace(context(), ready=frozenset({"n0"}))
    assert nodes_of(assign(one, tasks(one), there, silent)) == {"db-1": "n1", "web-1": "n0", "web-2": "n0"}


@pytest.mark.parametrize("there", [[], on("n0", tasks(stack(PINNED)))], ids=["new", "elsewhere until now"])
def test_a_task_that_is_not_there_yet_is_not_given_to_a_silent_node(there: list[Task]) -> None:
    with pytest.raises(UnschedulableError):
        assign(stack(PINNED), tasks(stack(PINNED)), there, msgspec.structs.replace(context(), ready=frozenset({"n0"})))


def test_a_task_that_an_answering_node_could_take_but_for_its_load_does_not_wait_for_a_silent_one() -> None:
    one = stack(service("web", 1, reserves=Reserves(cpus=9)))
    with pytest.raises(UnschedulableError):
        assign(one, tasks(one), on("n1", tasks(one)), msgspec.structs.replace(context(), ready=frozenset({"n0"})))
