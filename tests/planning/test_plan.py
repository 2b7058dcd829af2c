"""Expand, address, diff: pure, so tables and properties."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.container import Attachment, Container, Mount, digest
from agent.contract.status import NodeInfo, TaskStatus
from agent.contract.task import Task
from agent.reconcile import Create, ObservedContainer, Prepare, Remove, Restart, Start, Stop, next_action
from orchestrator.addressing.allocate import subnets
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.node import Node
from orchestrator.planning.diff import PlanOptions, plan
from orchestrator.planning.expand import expand
from orchestrator.planning.graph import waves
from orchestrator.planning.state import Plan, State
from orchestrator.stackfile.model import Dependency, Reserves, Service, Stack, StackNetwork, StackVolume


def service(name: str, image: str = "a", **extra: object) -> Service:
    container = Container(image=image, attachments=(Attachment(network="t_default", aliases=(name,)),))
    return Service(name=name, container=container, where="stack.yml:1:1", **extra)  # type: ignore[arg-type]


def stack(*services: Service) -> Stack:
    network = StackNetwork(key="default", name="t_default")
    return Stack(name="t", services=services, networks=(network,))


def steps(new: Stack, current: State) -> list[str]:
    made = plan(new, expand(new, current), current, revision=1)
    return [f"{s.action} {s.kind} {s.name}: {s.reason}" for s in made.changes]


def applied(new: Stack, current: State = State()) -> State:
    return plan(new, expand(new, current), current, revision=1).desired


CASES = {
    "what is there needs no step": (stack(service("web")), stack(service("web")), []),
    "a new image replaces the task and leaves the network alone": (
        stack(service("web", "a")),
        stack(service("web", "b")),
        ["replace task t-web-1: image changed from 'a' to 'b'"],
    ),
    "a further replica keeps the first": (
        stack(service("web")),
        stack(service("web", replicas=2)),
        ["create task t-web-2: not there yet"],
    ),
    "one replica fewer": (stack(service("web", replicas=2)), stack(service("web")), ["remove task t-web-2: one replica fewer"]),
    "a service that waits with restart: true goes along": (
        stack(service("db"), service("web", depends_on=(Dependency(service="db", restart=True),))),
        stack(service("db", "b"), service("web", depends_on=(Dependency(service="db", restart=True),))),
        ["replace task t-db-1: image changed from 'a' to 'b'", "update task t-web-1: restarts with db"],
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_plan(old: Stack, new: Stack, expected: list[str]) -> None:
    assert steps(new, applied(old)) == expected


def test_a_saved_plan_is_the_same_when_it_is_read_again() -> None:
    new = stack(msgspec.structs.replace(service("web"), container=Container(image="a", command=("sleep", "1"))))
    old = applied(stack(service("web")))
    made = plan(new, expand(new, old), old, revision=1)
    (step,) = (s for s in made.changes if s.kind == "task")
    assert "command" in {c.path for c in step.changes}
    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


def _with(state: State, **fields: object) -> State:
    return msgspec.structs.replace(state, tasks=tuple(msgspec.structs.replace(t, **fields) for t in state.tasks))


def _container(state: State, **fields: object) -> State:
    return _with(state, container=msgspec.structs.replace(state.tasks[0].container, **fields))


ONE = stack(service("web"))
BEFORE = applied(ONE)
FAILED = TaskStatus(task="t-web-1", state="failed", exit_code=3)
CAUSES: dict[str, tuple[Stack, State, dict[str, Any]]] = {
    "absent": (ONE, msgspec.structs.replace(BEFORE, tasks=()), {}),
    "changed": (ONE, _container(BEFORE, image="b"), {}),
    "moved": (ONE, _with(BEFORE, node="elsewhere"), {}),
    "forced": (ONE, BEFORE, {"options": PlanOptions(force=frozenset({"web"}))}),
    "not started": (ONE, _with(BEFORE, desired="waiting"), {}),
    "stopped": (ONE, _with(BEFORE, desired="stopped"), {}),
    "ended": (ONE, BEFORE, {"statuses": {"t-web-1": FAILED}}),
    "scaled": (ONE, applied(stack(service("web", replicas=2))), {}),
    "orphaned": (ONE, applied(stack(service("web"), service("old"))), {"options": PlanOptions(remove_orphans=True)}),
    "unused": (
        ONE,
        msgspec.structs.replace(BEFORE, networks=(*BEFORE.networks, msgspec.structs.replace(BEFORE.networks[0], name="n"))),
        {},
    ),
}


def test_what_has_to_go_is_a_step_and_what_waits_a_warning() -> None:
    low = service("low", reserves=Reserves(cpus=1), replicas=2)
    cramped = PlacementContext(
        nodes=(Node(name="n", id="i", info=NodeInfo(hostname="n", cpus=2)),), ready=frozenset({"n"}), local="n"
    )
    before = expand(stack(low), State(), context=cramped)
    both = stack(low, service("web", reserves=Reserves(cpus=1), priority=3))
    made = plan(both, expand(both, before, context=cramped), before, revision=1)
    assert [(s.name, s.reason) for s in made.changes if s.cause == "preempted"] == [
        ("t-low-2", "makes room for t-web-1 (priority 3, its own is 0)")
    ]
    assert {t.name for t in made.desired.tasks} == {"t-low-1", "t-web-1"}
    waiting = {e.task: e for e in made.desired.evicted}
    later = expand(both, made.desired, context=msgspec.structs.replace(cramped, preempted=waiting))
    made = plan(both, later, made.desired, revision=2)
    assert not made.changes
    assert "t-low-2 stays pending" in made.warnings[0]


@pytest.mark.parametrize("cause", CAUSES)
def test_a_step_has_its_cause_for_programs(cause: str) -> None:
    new, current, more = CAUSES[cause]
    made = plan(new, expand(new, current), current, revision=1, **more)
    assert [s.cause for s in made.changes] == [cause]
    assert {s.cause for s in made.steps if s.action == "none"} <= {"unchanged"}


def test_what_was_made_anew_on_demand_is_left_alone_by_the_next_up() -> None:
    force = PlanOptions(force=frozenset({"web"}))
    once = plan(ONE, expand(ONE, BEFORE), BEFORE, revision=1, options=force).desired
    assert steps(ONE, once) == []
    again = applied(ONE, once)
    assert again.tasks == once.tasks
    assert [s.cause for s in plan(ONE, expand(ONE, again), again, revision=1, options=force).changes] == ["forced"]
    assert steps(stack(service("web", "b")), again) == ["replace task t-web-1: image changed from 'a' to 'b'"]


def test_a_task_that_an_interrupted_up_left_waiting_is_started_by_the_next() -> None:
    one = stack(service("web"))
    state = applied(one)
    held = msgspec.structs.replace(state, tasks=tuple(msgspec.structs.replace(t, desired="waiting") for t in state.tasks))
    assert [s.split(":")[0] for s in steps(one, held)] == ["create task t-web-1"]


NAMES = st.sampled_from("abcdef")


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    names = sorted(draw(st.sets(NAMES, min_size=1)))
    made = []
    for number, name in enumerate(names):
        needs = draw(st.sets(st.sampled_from(names[:number]))) if number else set()
        made.append(
            service(
                name,
                draw(NAMES),
                replicas=draw(st.integers(1, 3)),
                depends_on=tuple(Dependency(service=n) for n in sorted(needs)),
            )
        )
    return stack(*made)


@given(stacks(), stacks())
def test_a_plan_leads_there_and_no_further(old: Stack, new: Stack) -> None:
    state = applied(new, applied(old))
    assert steps(new, state) == []
    addresses = [a.ipv4 for t in state.tasks for a in t.container.attachments]
    assert len(addresses) == len(set(addresses))


@given(stacks())
def test_a_wave_needs_only_what_came_before(one: Stack) -> None:
    seen: set[str] = set()
    for wave in waves(one):
        for name in wave:
            assert {d.service for s in one.services if s.name == name for d in s.depends_on} <= seen
        seen |= set(wave)


@given(st.lists(st.integers(0, 300), unique=True, max_size=40), st.integers(0, 20000))
def test_a_free_subnet_overlaps_none_that_is_taken(taken: list[int], endpoints: int) -> None:
    cidrs = [str(ipaddress.ip_network((int(ipaddress.ip_address("172.18.0.0")) + (n << 8), 24))) for n in taken]
    found = subnets((), ipv6=True, taken=cidrs, name="n", endpoints=endpoints)
    size = ipaddress.ip_network(found[0].cidr).num_addresses
    assert size >= max(256, 2 * endpoints)
    assert size <= max(256, 8 * endpoints)
    assert not any(ipaddress.ip_network(found[0].cidr).overlaps(ipaddress.ip_network(c)) for c in cidrs)
    assert ":" in found[1].cidr


TASK = Task(name="t", stack="s", service="w", container=Container(image="a"))


def seen(**fields: object) -> ObservedContainer:
    values = {"id": "c", "digest": digest(TASK.container), "generation": 0, "state": "running", "stopped": False}
    return ObservedContainer(**{**values, **fields})  # type: ignore[arg-type]


def task(**fields: object) -> Task:
    return msgspec.structs.replace(TASK, **fields)


RECONCILE = {
    "nothing there": (TASK, None, Create("t")),
    "running as it should": (TASK, seen(), None),
    "another spec": (TASK, seen(digest="x"), Remove("c", replaced=True)),
    "not in the manifest": (None, seen(), Remove("c", replaced=False)),
    "created only": (TASK, seen(state="created"), Start("c")),
    "ended by itself stays ended": (TASK, seen(state="exited"), None),
    "stopped by hand starts when wanted": (TASK, seen(state="exited", stopped=True), Start("c")),
    "a later generation": (task(generation=1), seen(), Restart("c")),
    "to be stopped": (task(desired="stopped"), seen(), Stop("c")),
    "held: the image first": (task(desired="waiting"), None, Prepare("a")),
}


@pytest.mark.parametrize(("wanted", "found", "expected"), RECONCILE.values(), ids=RECONCILE)
def test_reconcile(wanted: Task | None, found: ObservedContainer | None, expected: object) -> None:
    assert next_action(wanted, found, image_present=False) == expected


def test_a_plan_for_some_makes_what_they_use_and_no_more() -> None:
    two = (StackNetwork(key="one", name="t_one"), StackNetwork(key="two", name="t_two"))
    mounted = (Mount(kind="volume", source="t_data", target="/d"),)
    a = Service(
        name="a",
        container=Container(image="i", attachments=(Attachment(network="t_one"),), mounts=mounted),
        where="stack.yml:1:1",
    )
    b = Service(name="b", container=Container(image="i", attachments=(Attachment(network="t_two"),)), where="stack.yml:2:1")
    volumes = (StackVolume(key="data", name="t_data"), StackVolume(key="more", name="t_more"))
    new = Stack(name="t", services=(a, b), networks=two, volumes=volumes)

    def made(only: frozenset[str] | None, current: State = State()) -> Plan:
        return plan(new, expand(new, current, only=only), current, revision=1, options=PlanOptions(only=only))

    first = made(frozenset({"b"}))
    assert [(s.action, s.name) for s in first.changes] == [("create", "t_two"), ("create", "t-b-1")]
    rest = made(None, first.desired)
    assert {s.name for s in rest.changes} == {"t_one", "t_data", "t_more", "t-a-1"}
    assert made(frozenset({"b"}), rest.desired).changes == ()
