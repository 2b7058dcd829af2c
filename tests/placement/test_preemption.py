"""Tasks of a high priority take the place of those of a low one: of no more than they must, and of none of their own rank."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.container import Container, Mount, Port
from agent.contract.status import NodeInfo
from agent.contract.task import Task
from orchestrator.placement.arrange import arrange, arrange_oneoff, reassign
from orchestrator.placement.context import PlacementContext, service_requests, table_with
from orchestrator.placement.eviction import Eviction
from orchestrator.placement.explain import UnschedulableError, explain
from orchestrator.placement.feasibility import Feasibility
from orchestrator.placement.node import Node
from orchestrator.placement.preemption import SEARCHED, RoomMaker
from orchestrator.stackfile.model import Placement, Reserves, Service, Stack, StackVolume, UpdateConfig
from orchestrator.stackfile.workloads import Scale

NODE_CPUS = 4


def service(name: str, cpus: float = 1, priority: int = 0, replicas: int = 1, **fields: Any) -> Service:
    container = fields.pop("container", Container(image="x"))
    fields = {"reserves": Reserves(cpus=cpus), **fields}
    return Service(name=name, container=container, where="f:1:1", priority=priority, replicas=replicas, **fields)


def tasks_of(stack: Stack, nodes: Sequence[str] = ()) -> list[Task]:
    """All tasks of *stack*, on *nodes* in turn where any are given."""
    named = [(s, i) for s in stack.services for i in range(1, s.replicas + 1)]
    return [
        Task(
            name=f"{stack.name}-{s.name}-{i}",
            stack=stack.name,
            service=s.name,
            container=s.container,
            index=i,
            node=nodes[n % len(nodes)] if nodes else "",
        )
        for n, (s, i) in enumerate(named)
    ]


def cluster(*others: tuple[Stack, Sequence[str]], nodes: int = 1, **fields: Any) -> PlacementContext:
    """*nodes* of four cores with the tasks of *others*, each with the nodes of its tasks."""
    info = NodeInfo(hostname="n", cpus=NODE_CPUS, memory=8 << 30)
    empty = PlacementContext(
        nodes=tuple(Node(name=f"n{n}", id=f"i{n}", info=info) for n in range(nodes)),
        ready={f"n{n}" for n in range(nodes)},
        local="n0",
    )
    return msgspec.structs.replace(
        empty,
        others=[t for stack, where in others for t in tasks_of(stack, where)],
        requests={k: r for stack, _ in others for k, r in service_requests(stack, empty).items()},
        stacks={stack.name: stack for stack, _ in others},
        **fields,
    )


def gone(stack: Stack, context: PlacementContext, current: Sequence[Task] = ()) -> list[str]:
    found = arrange(stack, tasks_of(stack), current, context)
    assert all(t.node for t in found.tasks)
    return sorted(e.task for e in found.evicted)


HIGH = Stack(name="h", services=(service("web", priority=10),))
FULL = Stack(name="low", services=(service("a", cpus=2), service("b", replicas=2)))
SPARING = {
    "a service with replicas goes before one that has a single task": (FULL, ["low-b-2"]),
    "the lowest priority goes": (
        Stack(name="low", services=(service("a", replicas=2, priority=5), service("b", replicas=2))),
        ["low-b-2"],
    ),
    "one large rather than two small": (
        Stack(name="low", services=(service("a", replicas=2, cpus=0.5), service("b", replicas=3))),
        ["low-b-3"],
    ),
    "what the update may take down at once may go": (
        Stack(
            name="low",
            services=(
                service("a", replicas=2, update=UpdateConfig(parallelism=0)),
                service("b", replicas=2, scale=Scale(least=2, most=3)),
            ),
        ),
        ["low-a-2"],
    ),
}


@pytest.mark.parametrize(("low", "victims"), SPARING.values(), ids=SPARING)
def test_the_least_harm_is_done(low: Stack, victims: list[str]) -> None:
    assert gone(HIGH, cluster((low, ["n0"]))) == victims


def test_room_is_taken_where_there_is_some() -> None:
    assert gone(HIGH, cluster((FULL, ["n0"]), nodes=2)) == []


KEPT = {
    "of the same priority": service("a", cpus=4, priority=10),
    "of a higher one": service("a", cpus=4, priority=11),
    "that is on each node": service("a", cpus=4, mode="global"),
    "with names and volumes of their own": service("a", cpus=4, stable="ordered"),
    "that may run but once": service("a", cpus=4, mode="replicated-job", container=Container(image="x", restart="no")),
}


@pytest.mark.parametrize("one", KEPT.values(), ids=KEPT)
def test_a_task_keeps_its_place(one: Service) -> None:
    with pytest.raises(UnschedulableError):
        arrange(HIGH, tasks_of(HIGH), [], cluster((Stack(name="low", services=(one,)), ["n0"])))


def test_a_stack_that_is_being_changed_makes_no_room() -> None:
    with pytest.raises(UnschedulableError):
        arrange(HIGH, tasks_of(HIGH), [], msgspec.structs.replace(cluster((FULL, ["n0"])), stacks={}))


def test_a_one_off_task_takes_the_place_of_one_of_a_lower_priority() -> None:
    oneoff = Task(name="h-web-run", stack="h", service="web", container=Container(image="x"), where="f:1:1")
    task, evicted = arrange_oneoff(HIGH, oneoff, [], cluster((FULL, ["n0"])))
    assert (task.node, [e.by for e in evicted]) == ("n0", ["h-web-run"])
    free, nobody = arrange_oneoff(HIGH, oneoff, [], cluster())
    assert (free.node, nobody) == ("n0", ())
    equal = Stack(name="h", services=(service("web"),))
    with pytest.raises(UnschedulableError):
        arrange_oneoff(equal, oneoff, [], cluster((FULL, ["n0"])))


def test_services_that_must_share_a_node_stay_together() -> None:
    mount = Container(image="x", mounts=(Mount(target="/v", kind="volume", source="v"),))
    tied = Stack(
        name="low",
        volumes=(StackVolume(key="v", name="v"),),
        services=(service("a", cpus=2, container=mount), service("b", cpus=2, container=mount)),
    )
    with pytest.raises(UnschedulableError):
        arrange(HIGH, tasks_of(HIGH), [], cluster((tied, ["n0"])))


def test_what_would_not_help_stays() -> None:
    light = Stack(name="low", services=(service("a", cpus=0, replicas=3), service("b", cpus=4)))
    assert gone(HIGH, cluster((light, ["n0"]))) == ["low-b-1"]


def test_a_port_and_a_neighbour_are_made_room_for() -> None:
    port = Container(image="x", ports=(Port(target=80, published=80, mode="host"),))
    low = Stack(name="low", services=(service("a", container=port, cpus=0), service("b", cpus=0)))
    asks = Stack(name="h", services=(service("web", cpus=0, priority=1, container=port),))
    assert gone(asks, cluster((low, ["n0"]))) == ["low-a-1"]
    own = Stack(name="h", services=(service("b", cpus=0), service("web", cpus=0, priority=1, placement=Placement(away=("b",)))))
    there = tasks_of(own, ["n0"])[:1]
    found = arrange(own, tasks_of(own), there, cluster())
    assert [e.task for e in found.evicted] == ["h-b-1"]
    assert [t.name for t in found.tasks] == ["h-web-1"]


def test_services_of_one_stack_make_room_too() -> None:
    before = Stack(name="h", services=(service("low", replicas=4), service("web", priority=10)))
    there = tasks_of(before, ["n0"])[:4]
    found = arrange(before, tasks_of(before), there, cluster())
    assert [e.task for e in found.evicted] == ["h-low-4"]
    assert {t.name for t in found.tasks} == {"h-low-1", "h-low-2", "h-low-3", "h-web-1"}


def test_who_made_room_comes_back_or_waits() -> None:
    low = Stack(name="low", services=(service("a", replicas=2, cpus=2),))
    waits = {"low-a-2": Eviction(task="low-a-2", stack="low", service="a", node="n0", priority=0, by="h-web-1", by_priority=10)}
    high = Stack(name="h", services=(service("web", cpus=2, priority=10),))
    full = cluster((high, ["n0"]), preempted=waits)
    found = arrange(low, tasks_of(low), tasks_of(low, ["n0"])[:1], full)
    assert [t.name for t in found.tasks] == ["low-a-1"]
    assert [e.task for e in found.pending] == ["low-a-2"]
    free = cluster(preempted=waits)
    found = arrange(low, tasks_of(low), tasks_of(low, ["n0"])[:1], free)
    assert [t.name for t in found.tasks] == ["low-a-1", "low-a-2"]
    assert not found.pending


def test_tasks_of_a_lost_node_take_the_place_of_others() -> None:
    high = Stack(name="h", services=(service("web", replicas=2, cpus=3, priority=10),))
    context = msgspec.structs.replace(cluster((FULL, ["n1"]), nodes=2), ready={"n1"})
    nodes, evicted = reassign(high, tasks_of(high, ["n0"]), context, {"h-web-1", "h-web-2"})
    assert nodes == {"h-web-1": "n1"}
    assert sum(r.reserves.cpus for e in evicted for r in [context.requests[f"{e.stack}/{e.service}"]]) == 3


def test_why_says_whose_place_a_task_would_take() -> None:
    [one] = explain(HIGH, "web", "", [], cluster((FULL, ["n0"]))).candidates
    assert not one.feasible
    assert one.reasons[-1].filter == "priority"
    assert "low-b-2" in one.reasons[-1].detail


@st.composite
def crowds(draw: st.DrawFn) -> tuple[PlacementContext, Stack]:
    """Two nodes with up to six tasks each of three stacks, and a stack that asks for room."""
    others = []
    free = {"n0": float(NODE_CPUS), "n1": float(NODE_CPUS)}
    for name in "abc":
        cpus = draw(st.sampled_from([0.5, 1.0, 2.0]))
        where: list[str] = []
        for node in draw(st.lists(st.sampled_from(["n0", "n1"]), max_size=4)):
            if free[node] >= cpus:
                free[node] -= cpus
                where.append(node)
        pace = draw(st.sampled_from([None, UpdateConfig(parallelism=2), UpdateConfig(parallelism=0)]))
        one = service("x", cpus=cpus, priority=draw(st.integers(-2, 3)), replicas=len(where), update=pace)
        others.append((Stack(name=name, services=(one,)), where or ["n0"]))
    asked = service("web", cpus=draw(st.sampled_from([1.0, 2.5, 4.0])), priority=draw(st.integers(-1, 4)))
    return cluster(*others, nodes=2), Stack(name="h", services=(asked,))


def harm(victims: Sequence[Task], context: PlacementContext) -> tuple[int, int, int, int]:
    """What the set costs, counted anew from the stacks."""
    unspared = 0
    for name, stack in context.stacks.items():
        (one,) = stack.services
        pace = one.update.parallelism if one.update else 1
        least = max(1, one.replicas - (pace or one.replicas))
        unspared += max(0, sum(v.stack == name for v in victims) - max(0, one.replicas - least))
    ranks = [context.requests[f"{v.stack}/{v.service}"].priority for v in victims]
    return unspared, max(ranks), len(ranks), sum(ranks)


@settings(max_examples=150, deadline=None)
@given(crowds())
def test_no_other_set_of_tasks_would_do_less_harm(crowd: tuple[PlacementContext, Stack]) -> None:
    context, stack = crowd
    requests = service_requests(stack, context)
    request = requests["h/web"]
    table = table_with(context, [], requests)
    found = RoomMaker(stack, [], context, table).find(request)

    def fits(victims: Sequence[Task]) -> bool:
        left = msgspec.structs.replace(context, others=[t for t in context.others if t not in victims])
        alone = table_with(left, [], requests)
        return bool(Feasibility(request, alone).mask().any())

    if fits([]):
        assert found is not None
        assert not found.victims
        return
    lower = [t for t in context.others if context.requests[f"{t.stack}/{t.service}"].priority < request.priority]
    sets = (c for n in range(1, len(lower) + 1) for c in itertools.combinations(lower, n))
    costs = [harm(c, context) for c in sets if len({t.node for t in c}) == 1 and fits(c)]
    if not costs:
        assert found is None
        return
    assert found is not None
    assert all(t in lower for t in found.victims)
    assert harm(found.victims, context) == min(costs)
    assert fits(found.victims)
    assert not any(fits([t for t in found.victims if t is not one]) for one in found.victims)


@settings(max_examples=100, deadline=None)
@given(crowds(), st.integers(1, 4))
def test_nobody_goes_for_one_of_the_same_rank(crowd: tuple[PlacementContext, Stack], replicas: int) -> None:
    context, stack = crowd
    more = msgspec.structs.replace(stack.services[0], replicas=replicas)
    stack = msgspec.structs.replace(stack, services=(more,))
    try:
        found = arrange(stack, tasks_of(stack), [], context)
    except UnschedulableError:
        return
    assert all(e.priority < e.by_priority == more.priority for e in found.evicted)
    left = [t for t in context.others if t.name not in {e.task for e in found.evicted}]
    used = dict.fromkeys(("n0", "n1"), 0.0)
    known = {**context.requests, **service_requests(stack, context)}
    for task in (*left, *found.tasks):
        used[task.node] += known[f"{task.stack}/{task.service}"].reserves.cpus
    assert max(used.values()) <= NODE_CPUS


def test_a_crowd_too_large_to_search_gives_a_set_of_which_none_can_stay() -> None:
    kinds = tuple(service(f"k{n}", cpus=0.1 + n / 1000, replicas=2, priority=-n) for n in range(18))
    low = Stack(name="low", services=kinds)
    context = cluster((low, ["n0"]))
    high = Stack(name="h", services=(service("web", cpus=3.5, priority=10),))
    found = arrange(high, tasks_of(high), [], context)
    victims = {e.task for e in found.evicted}
    assert 2 ** len(kinds) > SEARCHED
    free = NODE_CPUS - sum(context.requests[f"low/{t.service}"].reserves.cpus for t in context.others)
    sizes = {t.name: context.requests[f"low/{t.service}"].reserves.cpus for t in context.others}
    total = sum(sizes[v] for v in victims)
    assert free + total >= 3.5 - 1e-9
    assert all(free + total - sizes[v] < 3.5 - 1e-9 for v in victims)
