"""How many replicas a redeploy keeps: what is there, and after a rollout that broke off what that one was to make."""

from __future__ import annotations

import pytest

from agent.contract.container import Container
from orchestrator.server.records import UpOptions
from orchestrator.server.rollouts.records import RolloutRecord, RolloutState, present_scale
from orchestrator.stackfile.model import Service, Stack

IMAGE = Container(image="i")
STACK = Stack(
    name="s",
    services=(
        Service(name="web", where="f:1", container=IMAGE, replicas=4),
        Service(name="all", where="f:2", container=IMAGE, mode="global"),
    ),
)


def tasks(count: int) -> dict[str, int]:
    return {"web": count}


def record(state: RolloutState, *, scale: dict[str, int] | None = None, verb: str = "redeploy") -> RolloutRecord:
    return RolloutRecord(id="1", stack=STACK, options=UpOptions(scale=scale or {}), verb=verb, state=state)  # type: ignore[arg-type]


def test_as_many_as_there_are() -> None:
    assert present_scale(STACK, tasks(6), None) == {"web": 6}
    assert present_scale(STACK, tasks(6), record("succeeded", scale={"web": 3})) == {"web": 6}


@pytest.mark.parametrize("left", [5, 7], ids=["one is lacking", "a spare is left"])
@pytest.mark.parametrize("state", ["failed", "running", "paused", "superseded"])
def test_a_redeploy_that_broke_off_changes_no_number(left: int, state: RolloutState) -> None:
    assert present_scale(STACK, tasks(left), record(state, scale={"web": 6})) == {"web": 6}


@pytest.mark.parametrize("state", ["failed", "superseded"])
def test_an_up_that_broke_off_is_what_the_stack_says_and_the_user(state: RolloutState) -> None:
    assert present_scale(STACK, tasks(2), record(state, verb="up")) == {"web": 4}
    assert present_scale(STACK, tasks(2), record(state, verb="up", scale={"web": 8})) == {"web": 8}


def test_an_up_that_was_aborted_is_what_the_stack_says() -> None:
    assert present_scale(STACK, tasks(2), record("aborted", verb="up", scale={"web": 8})) == {"web": 4}
