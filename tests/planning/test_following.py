"""The plan says who follows whom: a row a case."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.contract.container import digest
from agent.contract.status import TaskStatus
from orchestrator.planning.diff import PlanOptions, plan
from orchestrator.planning.expand import expand
from orchestrator.planning.state import Plan, State
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.model import Stack

FILE = """
services:
  vpn: {{image: i, environment: {{V: '{value}'}}}}
  app: {{image: i, {keys}}}
"""


def stack(path: Path, keys: str, value: str) -> Stack:
    (path / "stack.yml").write_text(FILE.format(keys=keys, value=value))
    return load(Options(files=(str(path / "stack.yml"),), project_name="s"), {}).stack


def second(path: Path, keys: str, *, state: str = "running", only: frozenset[str] | None = None) -> Plan:
    """The plan for another vpn, where both ran."""
    one = stack(path, keys, "1")
    current = expand(one, State())
    two = stack(path, keys, "2")
    statuses = {
        t.name: TaskStatus(task=t.name, state=state if t.service == "app" else "running", digest=digest(t.container))  # type: ignore[arg-type]
        for t in current.tasks
    }
    return plan(two, expand(two, current, only=only), current, revision=1, statuses=statuses, options=PlanOptions(only=only))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("network_mode: 'service:vpn'", "restarts with vpn: it has its network namespace"),
        ("network_mode: 'service:vpn', depends_on: [vpn]", "restarts with vpn: it has its network namespace"),
        ("pid: 'service:vpn'", "restarts with vpn: it has its PID namespace"),
        ("ipc: 'service:vpn'", "restarts with vpn: it has its IPC namespace"),
        ("volumes_from: [vpn]", "restarts with vpn: it has its volumes"),
        ("depends_on: {vpn: {condition: service_started, restart: true}}", "restarts with vpn"),
        ("links: [vpn]", "restarts with vpn"),
        ("depends_on: [vpn]", ""),
    ],
)
@pytest.mark.parametrize("only", [None, frozenset({"vpn"})], ids=["all", "the owner alone"])
def test_who_has_something_of_a_replaced_container_follows_it(
    tmp_path: Path, keys: str, reason: str, only: frozenset[str] | None
) -> None:
    made = second(tmp_path, keys, only=only)
    steps = {s.name: (s.action, s.reason) for s in made.steps if s.kind == "task"}
    assert steps["s-vpn-1"][0] == "replace"
    assert steps.get("s-app-1", ("none", ""))[1] in ((reason,) if reason else ("", "unchanged"))
    assert {t.name: t.generation for t in made.desired.tasks} == {"s-vpn-1": 0, "s-app-1": 1 if reason else 0}


def test_what_has_ended_is_left_as_it_is(tmp_path: Path) -> None:
    made = second(tmp_path, "volumes_from: [vpn]", state="exited")
    assert [s.action for s in made.steps if s.name == "s-app-1"] == ["none"]


def test_a_follower_keeps_its_own_definition_where_the_owner_alone_is_named(tmp_path: Path) -> None:
    one = expand(stack(tmp_path, "network_mode: 'service:vpn'", "1"), State())
    two = stack(tmp_path, "network_mode: 'service:vpn', user: '7'", "2")
    statuses = {t.name: TaskStatus(task=t.name, state="running", digest=digest(t.container)) for t in one.tasks}
    made = plan(
        two, expand(two, one, only={"vpn"}), one, revision=1, statuses=statuses, options=PlanOptions(only=frozenset({"vpn"}))
    )
    (app,) = (t for t in made.desired.tasks if t.service == "app")
    assert app == msgspec.structs.replace(next(t for t in one.tasks if t.service == "app"), generation=1)
