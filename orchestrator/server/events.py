"""The events that a long request of the control API streams, one JSON object a line: a tagged union, by the key `event`.

The server sends them, the CLI decodes them, and the OpenAPI document describes them. A stream ends with `done` or `error`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from agent.contract.status import TaskStatus
from agent.contract.task import Task
from agent.contract.wire import WireStruct
from orchestrator.planning.state import FieldChange, Kind, Step, Verb

S = TypeVar("S", bound=TaskStatus)


class Failure(WireStruct, frozen=True, kw_only=True):
    """One task that did not reach its goal. *where* is its place in the stack file, *log* the last lines of its output. One
    that was not started *waits_for* a service, whose *condition* does not hold."""

    task: str
    where: str
    reason: str
    exit_code: int | None = None
    log: tuple[str, ...] = ()
    waits_for: str = ""
    condition: str = ""
    service: str = ""


class StepEvent(WireStruct, frozen=True, kw_only=True, tag_field="event", tag="step"):
    """One step that is carried out now, of a plan or of another command; the fields are those of `Step`."""

    action: Verb
    kind: Kind
    name: str
    node: str = ""
    reason: str
    changes: tuple[FieldChange, ...] = ()
    container_name: str = ""
    """Of a task whose container the file names."""

    @classmethod
    def of(cls, step: Step, container_name: str = "") -> StepEvent:
        """The event for *step*."""
        return cls(
            action=step.action,
            kind=step.kind,
            name=step.name,
            node=step.node,
            reason=step.reason,
            changes=step.changes,
            container_name=container_name,
        )


class TaskEvent(TaskStatus, frozen=True, kw_only=True, tag_field="event", tag="task"):
    """A task of the stack changed its status."""

    @classmethod
    def of(cls, status: TaskStatus) -> TaskEvent:
        """The event for *status*."""
        return _extend(cls, status)


class WarningEvent(WireStruct, frozen=True, kw_only=True, tag_field="event", tag="warning"):
    """A sentence for the user; the work goes on."""

    message: str


class PullEvent(WireStruct, frozen=True, kw_only=True, tag_field="event", tag="pull"):
    """Progress of pulling *image*. Source: Docker Engine API, `POST /images/create`; *id* is a layer's, "" for the image as
    a whole; *detail* has `current` and `total` in bytes."""

    image: str
    status: str = ""
    id: str = ""
    detail: dict[str, int] | None = msgspec.field(default=None, name="progressDetail")

    @classmethod
    def of(cls, image: str, line: Mapping[str, Any]) -> PullEvent:
        """The event for one *line* of a node's answer."""
        return msgspec.convert({**line, "event": "pull", "image": image}, cls)


class ShipEvent(WireStruct, frozen=True, kw_only=True, tag_field="event", tag="ship"):
    """*image* is copied from node *source* to node *target*."""

    image: str
    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")


class MoveEvent(WireStruct, frozen=True, kw_only=True, tag_field="event", tag="move"):
    """Rebalancing moves *tasks* from node *source* to node *target*."""

    stack: str
    tasks: tuple[str, ...]
    source: str
    target: str
    reason: str


class VolumeEvent(WireStruct, frozen=True, kw_only=True, tag_field="event", tag="volume"):
    """Progress of moving *volume* from node *source* to node *target*."""

    volume: str
    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    message: str


class WorkEvent(WireStruct, frozen=True, kw_only=True, tag_field="event", tag="work"):
    """Something was done on *node* that is not a task's: a backup of a volume, say."""

    work: str
    node: str = ""
    message: str


class DoneEvent(WireStruct, frozen=True, kw_only=True, tag_field="event", tag="done"):
    """The work ended. It succeeded if *failures* is empty."""

    failures: tuple[Failure, ...]


class ErrorEvent(WireStruct, frozen=True, kw_only=True, tag_field="event", tag="error"):
    """The work was refused or stopped; *message* says why. With *again* the server that leads by now does it if it
    is asked: this one leads no more."""

    message: str
    again: bool = False


Event = (
    StepEvent | TaskEvent | WarningEvent | PullEvent | ShipEvent | MoveEvent | VolumeEvent | WorkEvent | DoneEvent | ErrorEvent
)
EVENTS: tuple[type[msgspec.Struct], ...] = Event.__args__
Emit = Callable[[Event], None]
"""Takes the events of one request, in order."""


class TaskChange(TaskStatus, frozen=True, kw_only=True):
    """One line of `GET /v1/events`: a status, and which task it is of. The last three are "" for a task that is gone."""

    stack: str = ""
    service: str = ""
    node: str = ""

    @classmethod
    def of(cls, status: TaskStatus, task: Task | None) -> TaskChange:
        """*status* with what *task* says of itself."""
        if task is None:
            return _extend(cls, status)
        return _extend(cls, status, stack=task.stack, service=task.service, node=task.node)


def ignore(event: Event) -> None:
    """A `Emit` for work that nobody follows."""
    del event


def _extend(cls: type[S], status: TaskStatus, **more: Any) -> S:
    return cls(**{name: getattr(status, name) for name in TaskStatus.__struct_fields__}, **more)
