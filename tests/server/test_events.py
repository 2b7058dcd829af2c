"""The events of the control API: their JSON, which clients rely on, and that the API's description has each of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from agent.contract.container import Container
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.planning.state import FieldChange, Step
from orchestrator.server.api.routes import ROUTES
from orchestrator.server.events import (
    EVENTS,
    DoneEvent,
    ErrorEvent,
    Event,
    Failure,
    MoveEvent,
    PullEvent,
    ShipEvent,
    StepEvent,
    TaskChange,
    TaskEvent,
    VolumeEvent,
    WarningEvent,
    WorkEvent,
)
from orchestrator.server.openapi import document

STATUS = TaskStatus(task="web-a-1", state="exited", container="c1", exit_code=1)
STEP = Step(
    action="update", kind="task", name="web-a-1", reason="image changed", changes=(FieldChange(path="image", after="b"),)
)
PULLED = {"id": "abc", "status": "Downloading", "progressDetail": {"current": 1, "total": 2}}
SAMPLES: Sequence[tuple[Event, dict[str, Any]]] = [
    (
        StepEvent.of(STEP),
        {
            "event": "step",
            "action": "update",
            "kind": "task",
            "name": "web-a-1",
            "reason": "image changed",
            "changes": [{"path": "image", "after": "b"}],
        },
    ),
    (
        StepEvent(action="remove", kind="task", name="web-a-1", node="n2", reason="down"),
        {"event": "step", "action": "remove", "kind": "task", "name": "web-a-1", "node": "n2", "reason": "down"},
    ),
    (TaskEvent.of(STATUS), {"event": "task", "task": "web-a-1", "state": "exited", "container": "c1", "exit_code": 1}),
    (WarningEvent(message="take care"), {"event": "warning", "message": "take care"}),
    (PullEvent.of("app:1", PULLED), {"event": "pull", "image": "app:1", **PULLED}),
    (PullEvent.of("app:1", {"status": "Pulling app:1"}), {"event": "pull", "image": "app:1", "status": "Pulling app:1"}),
    (ShipEvent(image="app:1", source="n1", target="n2"), {"event": "ship", "image": "app:1", "from": "n1", "to": "n2"}),
    (
        MoveEvent(stack="web", tasks=("web-a-1",), source="n1", target="n2", reason="n1 has 3 tasks, n2 1"),
        {
            "event": "move",
            "stack": "web",
            "tasks": ["web-a-1"],
            "source": "n1",
            "target": "n2",
            "reason": "n1 has 3 tasks, n2 1",
        },
    ),
    (
        VolumeEvent(volume="web_data", source="n1", target="n2", message="pass 1 took 0.100 s"),
        {"event": "volume", "volume": "web_data", "from": "n1", "to": "n2", "message": "pass 1 took 0.100 s"},
    ),
    (DoneEvent(failures=()), {"event": "done", "failures": []}),
    (
        DoneEvent(failures=(Failure(task="web-a-1", where="s.yml:2:3", reason="exited with 1", exit_code=1, log=("no",)),)),
        {
            "event": "done",
            "failures": [{"task": "web-a-1", "where": "s.yml:2:3", "reason": "exited with 1", "exit_code": 1, "log": ["no"]}],
        },
    ),
    (
        WorkEvent(work="data@backup of web", node="n1", message="snapshot 1a2b3c4d"),
        {"event": "work", "work": "data@backup of web", "node": "n1", "message": "snapshot 1a2b3c4d"},
    ),
    (ErrorEvent(message="there is no stack web"), {"event": "error", "message": "there is no stack web"}),
    (ErrorEvent(message="it leads no more", again=True), {"event": "error", "message": "it leads no more", "again": True}),
]


@pytest.mark.parametrize(("event", "wire"), SAMPLES, ids=lambda v: v["event"] if isinstance(v, dict) else "")
def test_an_event_is_this_json_and_is_read_back_from_it(event: Event, wire: dict[str, Any]) -> None:
    raw = msgspec.json.encode(event)
    assert json.loads(raw) == wire
    assert msgspec.json.decode(raw, type=Event) == event


def test_every_kind_of_event_has_a_sample_and_a_schema() -> None:
    assert {type(event) for event, _ in SAMPLES} == set(EVENTS)
    described = document(ROUTES)
    assert {kind.__name__ for kind in EVENTS} <= described["components"]["schemas"].keys()
    answer = described["paths"]["/v1/up"]["post"]["responses"]["200"]["content"]["application/x-ndjson"]["schema"]
    assert answer["discriminator"]["mapping"].keys() == {kind.__struct_config__.tag for kind in EVENTS}


def test_a_status_says_whose_it_is_as_long_as_the_task_is_there() -> None:
    task = Task(name="web-a-1", stack="web", service="a", node="n2", container=Container(image="i"))
    line = {"task": "web-a-1", "state": "exited", "container": "c1", "exit_code": 1}
    assert msgspec.to_builtins(TaskChange.of(STATUS, task)) == {**line, "stack": "web", "service": "a", "node": "n2"}
    assert msgspec.to_builtins(TaskChange.of(STATUS, None)) == line
