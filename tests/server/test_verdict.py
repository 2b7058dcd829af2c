"""When a task is up, when it never will be, and when that is still open: a row a case."""

from __future__ import annotations

import datetime

import msgspec
import pytest

from agent.contract.container import Container, digest
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.server.rollout import LOOP_LIMIT, SETTLE_S, verdict

TASK = Task(name="web-a-1", stack="web", service="a", node="n1", generation=2, container=Container(image="i"))
NOW = 1_800_000_000.0


def at(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(NOW + seconds, datetime.UTC).isoformat()


RUNS = TaskStatus(task=TASK.name, state="running", container="c1", digest=digest(TASK.container), generation=2, started=at(-5))
FINE, OPEN = "", None


def but(**fields: object) -> TaskStatus:
    return msgspec.structs.replace(RUNS, **fields)


CASES: dict[str, tuple[TaskStatus | None, str, str | None]] = {
    "nothing is known": (None, "up", OPEN),
    "it runs": (RUNS, "up", FINE),
    "it runs, and began just now": (but(started=at(-SETTLE_S / 2)), "up", OPEN),
    "it began in the future: a clock was set back": (but(started=at(3600)), "up", FINE),
    "it is of another definition": (but(digest="other"), "up", OPEN),
    "it is of an earlier generation": (but(generation=1), "up", OPEN),
    "it could not be made": (but(state="failed", container="", digest="", error="no such image"), "up", "no such image"),
    "it could not be started again, and waits": (but(state="restarting", error="port 80 is in use"), "up", OPEN),
    "it is paused": (but(state="paused"), "up", FINE),
    "it is pulled": (but(state="pulling"), "up", OPEN),
    "it ended well": (but(state="exited", exit_code=0), "up", FINE),
    "it ended well before it was healthy": (
        but(state="exited", exit_code=0),
        "service_healthy",
        "exited before it was healthy",
    ),
    "it ended badly": (but(state="exited", exit_code=3), "up", "exited with 3"),
    "it ended badly, and only its start counts": (but(state="exited", exit_code=3), "service_started", FINE),
    "it had too little memory": (but(state="exited", exit_code=137, oom_killed=True), "up", "out of memory"),
    "it is restarted": (but(state="restarting", exit_code=1, restarts=1), "up", OPEN),
    "it is restarted again and again": (
        but(state="restarting", exit_code=1, restarts=LOOP_LIMIT),
        "up",
        f"exited with 1 and was restarted {LOOP_LIMIT} times",
    ),
    "it runs after some restarts": (but(restarts=LOOP_LIMIT), "up", FINE),
    "it becomes healthy": (but(health="starting"), "up", OPEN),
    "it is healthy": (but(health="healthy", started=at(0)), "up", FINE),
    "it is unhealthy": (but(health="unhealthy"), "up", "is unhealthy"),
    "it is unhealthy, and only its start counts": (but(health="unhealthy", started=at(0)), "service_started", FINE),
    "it has no healthcheck": (
        RUNS,
        "service_healthy",
        "has no healthcheck, so it can never be healthy: give it one, or wait for service_started",
    ),
    "it runs, and its end is waited for": (RUNS, "service_completed_successfully", OPEN),
    "its end is waited for, and came": (but(state="exited", exit_code=0), "service_completed_successfully", FINE),
    "its end is waited for, and was bad": (but(state="exited", exit_code=1), "service_completed_successfully", "exited with 1"),
    "it has begun": (but(started=at(0)), "begun", FINE),
    "it has begun, whatever came of it": (but(state="exited", exit_code=1), "begun", FINE),
    "it has not begun": (but(state="pulling"), "begun", OPEN),
}


@pytest.mark.parametrize(("status", "want", "expected"), CASES.values(), ids=CASES.keys())
def test_verdict(status: TaskStatus | None, want: str, expected: str | None) -> None:
    assert verdict(TASK, status, now=NOW, want=want) == expected
