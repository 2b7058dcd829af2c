"""The order of services, and what a plan says of configs, secrets, files and tasks that stay or go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.container import Container, File
from agent.contract.network import Network
from agent.contract.status import TaskStatus
from orchestrator.planning import graph
from orchestrator.planning.diff import PlanOptions, differences, plan, summarize
from orchestrator.planning.expand import SINGLE_NODE, expand
from orchestrator.planning.state import State
from orchestrator.stackfile.model import Dependency, Service, Stack, StackContent

NAMES = "abcdef"
# each may need those before it, so that there is no circle
NEEDS = st.fixed_dictionaries({n: st.sets(st.sampled_from(NAMES[:i] or "-")) for i, n in enumerate(NAMES)})


def service(name: str, *needs: str, **fields: Any) -> Service:
    dependencies = tuple(Dependency(service=n) for n in needs)
    return Service(name=name, where="f:1", container=Container(image="x", **fields), depends_on=dependencies)


def stack(*services: Service) -> Stack:
    return Stack(name="s", services=services)


@given(NEEDS)
def test_each_wave_needs_only_those_before_it_and_comes_as_early_as_it_can(needs: dict[str, set[str]]) -> None:
    needs = {n: found - {"-"} for n, found in needs.items()}
    waves = graph.waves(stack(*(service(n, *sorted(found)) for n, found in needs.items())))
    rank = {name: number for number, wave in enumerate(waves) for name in wave}
    assert sorted(rank) == sorted(NAMES)
    for name, found in needs.items():
        assert rank[name] == max((rank[n] + 1 for n in found), default=0)


def test_what_is_not_in_the_file_is_nobody_s_wave() -> None:
    assert graph.waves(stack(service("a", "gone"))) == (("a",),)


def test_who_is_in_a_pid_namespace_ends_with_its_owner() -> None:
    one = stack(
        service("a"),
        service("b", pid_mode="service:a"),
        service("c", pid_mode="service:b"),
        service("d", pid_mode="host"),
        service("e", pid_mode="service:gone"),
        service("f", network_mode="service:a"),
    )
    assert graph.followed_by(one, ["a"]) == {"a", "b", "c"}
    assert graph.followed_by(one, ["c"]) == {"c"}


def test_who_has_something_of_whom() -> None:
    one = service(
        "a", network_mode="service:n", ipc_mode="service:n", pid_mode="container:x", volumes_from=("v:ro", "container:y")
    )
    assert graph.owners(one) == {"n": "network namespace", "v": "volumes"}


FILE = File(target="/f", source="one", digest="1")


@pytest.mark.parametrize(
    ("before", "after", "path", "shown"),
    [
        ((), (FILE,), "configs.one", (None, True)),
        ((FILE,), (), "configs.one", (True, None)),
        ((FILE,), (msgspec.structs.replace(FILE, digest="2"),), "configs.one", (True, True)),
        ((FILE,), (msgspec.structs.replace(FILE, target="/g"),), "configs.one.target", (True, True)),
        ((), (msgspec.structs.replace(FILE, secret=True),), "secrets.one", (None, True)),
    ],
)
def test_a_file_that_differs_is_named_and_not_shown(
    before: tuple[File, ...], after: tuple[File, ...], path: str, shown: tuple[bool | None, bool | None]
) -> None:
    (found,) = differences(Container(image="x", files=before), Container(image="x", files=after))
    assert found.path == path
    assert (found.before is not None or None, found.after is not None or None) == shown
    assert "/f" not in str(found.before)
    assert summarize((found,))


def test_a_secret_looking_variable_is_masked_and_others_are_shown() -> None:
    old = Container(image="x", environment=(("A", "1"), ("PASSWORD", "old"), ("GONE", "g")))
    new = Container(image="x", environment=(("A", "2"), ("PASSWORD", "new")))
    found = {c.path: (c.before, c.after) for c in differences(old, new)}
    assert found["environment.A"] == ("1", "2")
    assert found["environment.GONE"] == ("g", None)
    assert "old" not in str(found["environment.PASSWORD"])
    assert "new" not in str(found["environment.PASSWORD"])


def test_a_network_says_which_option_differs() -> None:
    old = Network(name="n", options=(("a", "1"), ("b", "1")))
    new = msgspec.structs.replace(old, options=(("a", "1"), ("b", "2")), internal=True)
    assert {c.path for c in differences(old, new)} == {"options.b", "internal"}


def made(one: Stack, before: State = State(), **scale: int) -> State:
    return expand(one, before, scale=scale, context=SINGLE_NODE)


@pytest.mark.parametrize(
    ("remove", "ignore", "removed", "warned"), [(False, False, False, 1), (False, True, False, 0), (True, False, True, 0)]
)
def test_a_service_that_left_the_file(*, remove: bool, ignore: bool, removed: bool, warned: int) -> None:
    before = made(stack(service("a"), service("b")))
    smaller = stack(service("a"))
    options = PlanOptions(remove_orphans=remove, ignore_orphans=ignore)
    found = plan(smaller, made(smaller, before), before, revision=1, options=options)
    causes = [s.cause for s in found.steps if s.action == "remove" and s.kind == "task"]
    assert causes == (["orphaned"] if removed else [])
    assert sum("orphan" in w for w in found.warnings) == warned


def test_fewer_replicas_are_one_step_each() -> None:
    one = stack(service("a"))
    before = made(one, a=3)
    found = plan(one, made(one, before, a=1), before, revision=1)
    assert [(s.name, s.cause) for s in found.steps if s.action == "remove"] == [("s-a-2", "scaled"), ("s-a-3", "scaled")]


def ended(**fields: Any) -> TaskStatus:
    return TaskStatus(task="s-a-1", **fields)


ONE = stack(service("a"))
NOW = made(ONE)
CASES: dict[str, tuple[str, TaskStatus | None, PlanOptions, str, str]] = {
    "it runs": ("running", ended(state="running"), PlanOptions(), "none", "unchanged"),
    "asked for": ("running", ended(state="running"), PlanOptions(force=frozenset({"a"})), "replace", "forced"),
    "never started": ("waiting", None, PlanOptions(), "create", "not started"),
    "never started, and need not be": ("waiting", None, PlanOptions(starting=False), "none", "unchanged"),
    "stopped": ("stopped", None, PlanOptions(), "update", "stopped"),
    "it failed": ("running", ended(state="failed", error="no"), PlanOptions(), "update", "ended"),
    "it ended well": ("running", ended(state="exited", exit_code=0), PlanOptions(), "none", "unchanged"),
    "it ended well, and is to run again": (
        "running",
        ended(state="exited", exit_code=0),
        PlanOptions(again=frozenset({"a"})),
        "update",
        "ended",
    ),
}


@pytest.mark.parametrize(("desired", "status", "options", "action", "cause"), CASES.values(), ids=CASES)
def test_what_becomes_of_a_task_that_is_as_the_file_says(
    desired: Any, status: TaskStatus | None, options: PlanOptions, action: str, cause: str
) -> None:
    before = msgspec.structs.replace(NOW, tasks=tuple(msgspec.structs.replace(t, desired=desired) for t in NOW.tasks))
    statuses = {"s-a-1": status} if status else {}
    found = plan(ONE, made(ONE, before), before, revision=1, statuses=statuses, options=options)
    assert [(s.action, s.cause) for s in found.steps if s.kind == "task"] == [(action, cause)]


def test_a_task_that_moves_is_replaced_and_says_from_where() -> None:
    before = msgspec.structs.replace(NOW, tasks=tuple(msgspec.structs.replace(t, node="other") for t in NOW.tasks))
    (step,) = (s for s in plan(ONE, NOW, before, revision=1).steps if s.kind == "task")
    assert (step.action, step.cause, step.reason) == ("replace", "moved", "moves from other to local")


def test_contents_are_compared_by_digest() -> None:
    def with_contents(**digests: str) -> State:
        contents = tuple(StackContent(kind="secret", key=n, name=n, digest=d) for n, d in digests.items())
        return msgspec.structs.replace(NOW, contents=contents)

    found = plan(ONE, with_contents(a="1", b="2", new="1"), with_contents(a="1", b="1", old="1"), revision=1)
    steps = {s.name: (s.action, s.cause) for s in found.steps if s.kind == "secret"}
    assert steps == {
        "a": ("none", "unchanged"),
        "b": ("update", "changed"),
        "new": ("create", "absent"),
        "old": ("remove", "unused"),
    }
