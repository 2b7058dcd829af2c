"""All objects of the swarm as they are now, and which of them a name or a filter means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from agent.contract.printable import quoted
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from agent.contract.times import seconds_of
from orchestrator.errors import RefusedError
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import StackRecord
from orchestrator.stackfile.model import Service
from orchestrator.swarm import objects
from orchestrator.swarm.objects import Object

Test = Callable[[Object, str], bool]


class Named(NamedTuple):
    """A service, and the stack that it is of."""

    record: StackRecord
    service: Service


class View:
    """What *plane* knows. Nothing is kept: each request sees the cluster as it is."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    # --- lists -------------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Object]:
        """All nodes."""
        cluster = self.plane.cluster
        return [
            objects.node_of(
                member.node,
                ready=member.ready,
                problem=member.problem,
                leader=member.node.name == cluster.local,
                index=self.plane.state.revision,
            )
            for _, member in sorted(cluster.members.items())
        ]

    def named(self) -> dict[str, Named]:
        """All services, by their IDs."""
        return {
            objects.identity("service", objects.service_name(record.stack.name, service.name)): Named(record, service)
            for _, record in sorted(self.plane.state.stacks.items())
            for service in record.stack.services
            if service.provider is None
        }

    def services(self) -> list[Object]:
        """All services."""
        found = []
        for record, service in self.named().values():
            tasks = self._planned(record, service.name)
            rollout = self.plane.rollouts.records.get(record.stack.name)
            found.append(objects.service_of(record, service, tasks, [self._state(t) for t in tasks], rollout))
        return found

    def _planned(self, record: StackRecord, service: str) -> list[Task]:
        return [t for t in self.plane.state.of_stack(record.stack.name).tasks if t.service == service and t.planned]

    def _state(self, task: Task) -> str:
        status = self.plane.statuses.by_task.get(task.name)
        return objects.state_of(task, status, lost=bool(self.plane.cluster.unreachable_reason(task.node)))

    def tasks(self) -> list[Object]:
        """All tasks that services have."""
        plane, found = self.plane, []
        for record in plane.state.stacks.values():
            services = {s.name: s for s in record.stack.services}
            runs = {n: objects.job_iteration(self._planned(record, n)) for n, s in services.items() if s.is_job}
            for task in plane.state.of_stack(record.stack.name).tasks:
                if task.service in services and task.desired != "oneoff":
                    status = plane.statuses.by_task.get(task.name)
                    lost = plane.cluster.unreachable_reason(task.node)
                    run = runs.get(task.service)
                    made = objects.task_of(task, services[task.service], status, record.revision, lost=lost, run=run)
                    found.append(made | {"UpToDate": self._is_up_to_date(task, status)})
        return found

    def _is_up_to_date(self, task: Task, status: TaskStatus | None) -> bool:
        """Whether *task* is as its service is wanted: while an update of it goes on, those that began before it are not."""
        rollout = self.plane.rollouts.records.get(task.stack)
        if rollout is None or rollout.state != "running" or not rollout.concerns(task.service):
            return True
        return status is None or not status.created or seconds_of(status.created) >= rollout.begun

    def contents(self, kind: str) -> list[Object]:
        """All secrets, or configs, made by hand or by stacks."""
        found = [objects.made_by_hand(one) for one in self.plane.contents.named.values() if one.kind == kind]
        found += [
            objects.content_of(kind, one.name, name, record.updated)
            for name, record in self.plane.state.stacks.items()
            for one in record.stack.contents
            if one.kind == kind and not one.external
        ]
        return sorted(found, key=lambda o: str(o["Spec"]["Name"]))

    # --- one -----------------------------------------------------------------------------------------------------------

    def one(self, kind: str, text: str) -> Object:
        """The object of the *kind* (service, node, …) whose ID, name, or beginning of an ID *text* is. Raises RefusedError."""
        found = one_of(self.all(kind), text)
        if found is None:
            raise RefusedError(f"no such {kind}: {quoted(text)}", 404)
        return found

    def all(self, kind: str) -> list[Object]:
        """All objects of the *kind*."""
        match kind:
            case "node":
                return self.nodes()
            case "service":
                return self.services()
            case "task":
                return self.tasks()
            case _:
                return self.contents(kind)

    def service(self, text: str) -> Named:
        """The service that *text* means. Raises RefusedError."""
        return self.named()[self.one("service", text)["ID"]]


def name_of(document: Object) -> str:
    """What an object is called; a task has no name."""
    return str(document["Spec"].get("Name", ""))


def one_of(documents: Iterable[Object], text: str) -> Object | None:
    """The one whose ID or name is *text*, or whose ID alone begins so. Raises RefusedError where several do."""
    documents = list(documents)
    for document in documents:
        if text in (document["ID"], name_of(document)) and text:
            return document
    found = [d for d in documents if text and d["ID"].startswith(text)]
    if len(found) > 1:
        raise RefusedError(f"{quoted(text)} is ambiguous ({len(found)} matches found)", 400)
    return found[0] if found else None


# --- filters -------------------------------------------------------------------------------------------------------------


def _labelled(labels: Mapping[str, str], wanted: str) -> bool:
    key, eq, value = wanted.partition("=")
    return key in labels and (not eq or labels[key] == value)


def _mode(document: Object, wanted: str) -> bool:
    words = {"Replicated": "replicated", "Global": "global", "ReplicatedJob": "replicated-job", "GlobalJob": "global-job"}
    return words[next(iter(document["Spec"]["Mode"]))] == wanted


TESTS: dict[str, dict[str, Test]] = {
    "node": {
        "id": lambda d, v: d["ID"].startswith(v),
        "name": lambda d, v: d["Description"]["Hostname"].startswith(v) or name_of(d).startswith(v),
        "label": lambda d, v: _labelled(d["Description"]["Engine"]["Labels"], v),
        "node.label": lambda d, v: _labelled(d["Spec"]["Labels"], v),
        "role": lambda d, v: d["Spec"]["Role"] == v,
        "membership": lambda d, v: v == "accepted",
    },
    "service": {
        "id": lambda d, v: d["ID"].startswith(v),
        "name": lambda d, v: name_of(d).startswith(v),
        "label": lambda d, v: _labelled(d["Spec"]["Labels"], v),
        "mode": _mode,
        "runtime": lambda d, v: v == "container",
    },
    "task": {
        "id": lambda d, v: d["ID"].startswith(v),
        "name": lambda d, v: d["ID"].startswith(v),
        "label": lambda d, v: _labelled(d["Spec"]["ContainerSpec"]["Labels"], v),
        "service": lambda d, v: d["ServiceID"] == v,
        "node": lambda d, v: d["NodeID"] == v,
        "desired-state": lambda d, v: d["DesiredState"] == v,
        "runtime": lambda d, v: v == "container",
        "_up-to-date": lambda d, v: d["UpToDate"] == (v == "true"),
    },
    "secret": {
        "id": lambda d, v: d["ID"].startswith(v),
        "name": lambda d, v: name_of(d).startswith(v),
        "names": lambda d, v: name_of(d) == v,
        "label": lambda d, v: _labelled(d["Spec"]["Labels"], v),
    },
}
TESTS["config"] = TESTS["secret"]


def filtered(kind: str, documents: list[Object], text: str) -> list[Object]:
    """Those that the query's *text* leaves: of values under one key one must hold, of labels and of keys all. Raises
    RefusedError."""
    try:
        given: Any = json.loads(text or "{}") or {}
        wanted = {str(k): [v] if isinstance(v, str) else [str(w) for w in v] for k, v in given.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise RefusedError(f"filters={quoted(text)}: an object of lists", 400) from None
    if kind == "task":  # clients may name what a task is of
        wanted = {k: [_identified(k, v) for v in values] for k, values in wanted.items()}
    for key, values in wanted.items():
        test = TESTS[kind].get(key)
        if test is None:
            raise RefusedError(f"Invalid filter '{quoted(key)}'", 400)
        every = all if key.endswith("label") else any
        documents = [d for d in documents if not values or every(test(d, v) for v in values)]
    return documents


def _identified(key: str, value: str) -> str:
    """The ID that *value* is, or is the name of."""
    return value if key not in ("service", "node") or len(value) == objects.LENGTH else objects.identity(key, value)
