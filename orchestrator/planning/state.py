"""What a plan begins with and ends with."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from agent.contract.network import Network
from agent.contract.task import Task
from agent.contract.volume import Volume
from agent.contract.wire import WireStruct
from orchestrator.placement.eviction import Eviction
from orchestrator.stackfile.model import StackContent

Kind = Literal["service", "task", "network", "volume", "secret", "config"]
Verb = Literal["create", "update", "replace", "remove", "none"]
Cause = Literal[
    "unchanged",
    "absent",  # it does not exist yet
    "changed",  # what the file says of it
    "moved",  # to another node
    "forced",  # the user asked for it
    "not started",  # an earlier `up` ended first
    "stopped",  # by a user
    "ended",  # by itself, in failure
    "followed",  # another service is restarted, or has a new container
    "orphaned",  # its service left the file
    "scaled",  # fewer replicas
    "preempted",  # by a task of a higher priority
    "unused",
]
"""Why a step is there."""


class State(WireStruct, frozen=True, kw_only=True):
    """Networks, volumes, tasks, configs and secrets of one stack, by name. *evicted* are tasks, of any stack, that have to go
    for it; *pending* are tasks of its own that had to go for others, and have no room yet."""

    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    tasks: tuple[Task, ...] = ()
    contents: tuple[StackContent, ...] = ()
    evicted: tuple[Eviction, ...] = ()
    pending: tuple[Eviction, ...] = ()


class FieldChange(WireStruct, frozen=True, kw_only=True):
    """One differing field; values of secrets and of variables that look like one are masked."""

    path: str
    before: Any = None
    after: Any = None


def as_written(value: Any) -> Any:
    """*value* as it is read back from JSON, lists in place of tuples: a saved plan is compared with a new one."""
    return msgspec.json.decode(msgspec.json.encode(value))


class Step(WireStruct, frozen=True, kw_only=True):
    """One change, or its absence, of one object: *action* on *name* of *kind*, on *node* if it belongs to one.

    *reason* is for people, *cause* is the same for programs; plans of an older version have none."""

    action: Verb
    kind: Kind
    name: str
    reason: str
    cause: Cause = "unchanged"
    node: str = ""
    changes: tuple[FieldChange, ...] = ()
    follows: str = ""
    """The service of which the task needs the new container, and waits for it."""


class Plan(WireStruct, frozen=True, kw_only=True):
    """The steps from *current* to *desired*, each with its reason, in an order in which they can be done.

    *revision* is the store's when the plan was made, *basis* a digest of what the stack was then: `apply` refuses a plan
    whose ground has moved."""

    stack: str
    revision: int
    basis: str
    steps: tuple[Step, ...]
    desired: State
    waves: tuple[tuple[str, ...], ...] = ()
    warnings: tuple[str, ...] = ()

    def without_tasks(self, current: State) -> Plan:
        """The same plan, but with the tasks of *current* left as they are."""
        desired = msgspec.structs.replace(self.desired, tasks=current.tasks, evicted=())
        steps = tuple(s for s in self.steps if s.kind != "task" and s.action != "remove")
        return msgspec.structs.replace(self, steps=steps, desired=desired)

    @property
    def changes(self) -> tuple[Step, ...]:
        """The steps that do something."""
        return tuple(step for step in self.steps if step.action != "none")
