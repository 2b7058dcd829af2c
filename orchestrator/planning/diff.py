"""From what is to what should be: the steps, each with its reason. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

import msgspec

from agent.contract.container import Container, File, digest, moved
from agent.contract.network import Network
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.planning import graph
from orchestrator.planning.following import Following
from orchestrator.planning.state import FieldChange, Plan, State, Step
from orchestrator.stackfile.model import Stack, StackContent

_SECRET = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)
MASK = "•••"


def plan(
    stack: Stack,
    desired: State,
    current: State,
    *,
    revision: int,
    statuses: Mapping[str, TaskStatus] = {},
    remove_orphans: bool = False,
    force: frozenset[str] = frozenset(),
    only: Set[str] | None = None,
    starting: bool = True,
    keep: bool = False,
) -> Plan:
    """The steps from *current* to *desired*; all of them "none" where they are equal.

    *force* names services whose tasks are replaced without a change; *only* limits the plan to some services;
    without *starting* it is enough that all is made; with *keep* no container that is there is replaced.
    The same arguments give the same plan, byte for byte."""
    steps: list[Step] = []
    warnings: list[str] = []
    mine = {s.name for s in stack.services}
    wanted = mine if only is None else only
    old_networks = {n.name: n for n in current.networks}
    new_networks = {n.name: n for n in desired.networks}
    kept_tasks = [t for t in current.tasks if t.service in mine and t.service not in wanted and t.desired != "oneoff"]
    for network in desired.networks:
        steps.append(_network_step(network, old_networks.get(network.name)))
    old_volumes = {v.name for v in current.volumes}
    for volume in desired.volumes:
        if volume.external:
            continue
        new = volume.name not in old_volumes
        bound = volume.node and not volume.shared
        steps.append(
            Step(
                action="create" if new else "none",
                kind="volume",
                name=volume.name,
                node=volume.node if bound else "",
                reason="unchanged" if not new else "not there yet; its users stay where it is" if bound else "not there yet",
            )
        )
    steps += _content_steps(desired.contents, current.contents)
    old_tasks = {t.name: t for t in current.tasks}
    following = Following(stack)
    tasks: list[Task] = []
    order = graph.waves(stack)
    rank = {name: number for number, wave in enumerate(order) for name in wave}
    for task in sorted(desired.tasks, key=lambda t: (rank[t.service], t.service, t.index)):
        old, status = old_tasks.get(task.name), statuses.get(task.name)
        if task.service in wanted:
            if keep and old is not None and old.node == task.node:
                task = msgspec.structs.replace(task, container=old.container, container_name=old.container_name)
            step, made = _task_step(task, old, status, task.service in force, starting)
            if step.action == "none":
                step, made = following.step(task, old, status) or (step, made)
        elif follower := following.step(task, old, status):  # nothing of it is to change, but what it depends on does
            step, made = follower
            kept_tasks = [t for t in kept_tasks if t.name != task.name]
        else:
            continue
        if step.action != "update" or old is None or made.generation != old.generation:  # else it runs on
            following.note(step, task.service, known=old is not None)
        steps.append(step)
        tasks.append(made)
    names = {t.name for t in desired.tasks}
    orphans = [t for t in current.tasks if t.service not in mine and t.desired != "oneoff"]
    oneoffs = [t for t in current.tasks if t.desired == "oneoff"]
    for task in current.tasks:
        if task.desired == "oneoff":
            continue
        if task.service in mine and task.name not in names and task.service in wanted:
            steps.append(Step(action="remove", kind="task", name=task.name, node=task.node, reason="one replica fewer"))
        elif task.service not in mine:
            if remove_orphans:
                steps.append(
                    Step(action="remove", kind="task", name=task.name, node=task.node, reason="its service left the file")
                )
            else:
                warnings.append(f"task {task.name} belongs to no service of the file: --remove-orphans takes it away")
    left = [] if remove_orphans else orphans
    used = {a.network for t in (*left, *kept_tasks, *oneoffs) for a in t.container.attachments}
    for network in current.networks:
        if network.name not in new_networks and network.name not in used:
            steps.append(Step(action="remove", kind="network", name=network.name, reason="nothing in the file uses it"))
    networks = tuple(new_networks.values()) + tuple(
        n for n in current.networks if n.name not in new_networks and n.name in used
    )
    volumes = {v.name: v for v in (*current.volumes, *desired.volumes)}
    state = State(
        networks=networks,
        volumes=tuple(volumes.values()),
        tasks=(*tasks, *left, *kept_tasks, *oneoffs),
        contents=desired.contents,
    )
    parts = (current.networks, current.volumes, current.tasks, current.contents)
    before = [sorted(part, key=lambda one: one.name) for part in parts]
    basis = hashlib.sha256(msgspec.json.encode(before, order="deterministic")).hexdigest()[:16]
    return Plan(
        stack=stack.name,
        revision=revision,
        basis=basis,
        steps=tuple(steps),
        desired=state,
        waves=order,
        warnings=tuple(warnings),
    )


def _network_step(network: Network, old: Network | None) -> Step:
    if old is None:
        return Step(action="create", kind="network", name=network.name, reason="not there yet")
    # who carries it and which services have an address on it follows from the tasks, and disturbs none of them
    beside = {"hosts": network.hosts, "vips": network.vips, "service_pools": network.service_pools}
    changes = differences(msgspec.structs.replace(old, **beside), network)
    if changes:
        return Step(action="replace", kind="network", name=network.name, changes=changes, reason=summarize(changes))
    return Step(action="none", kind="network", name=network.name, reason="unchanged")


def _content_steps(new: Sequence[StackContent], old: Sequence[StackContent]) -> list[Step]:
    """One step a config or secret; what it contains is told to nobody."""
    before = {(c.kind, c.name): c.digest for c in old}
    steps = []
    for one in new:
        known = before.pop((one.kind, one.name), None)
        action, reason = ("none", "unchanged") if known == one.digest else ("update", "its content changed")
        if known is None:
            action, reason = "create", "not there yet"
        steps.append(Step(action=action, kind=one.kind, name=one.name, reason=reason))  # type: ignore[arg-type]
    return steps + [Step(action="remove", kind=kind, name=name, reason="nothing in the file uses it") for kind, name in before]


def _task_step(task: Task, old: Task | None, status: TaskStatus | None, force: bool, starting: bool) -> tuple[Step, Task]:
    """The step for one task, and the task as it will be written."""

    def step(action: Any, reason: str, changes: tuple[FieldChange, ...] = ()) -> Step:
        return Step(action=action, kind="task", name=task.name, node=task.node, reason=reason, changes=changes)

    again = msgspec.structs.replace(task, generation=(old.generation if old else 0) + 1)
    runs = status is not None and status.state in ("running", "paused")
    if old is None:
        return step("create", "not there yet"), task
    if old.node != task.node:
        return step("replace", f"moves from {old.node} to {task.node}"), task
    if digest(old.container) != digest(task.container) or old.container_name != task.container_name:
        changes = differences(old.container, task.container)
        if runs and old.desired == "running" and moved(old.container, task.container):
            return step("update", "is given its new addresses while it runs: its network changed", changes), task
        return step("replace", summarize(changes) or "its name changed", changes), task
    if force:
        # another label is another digest, so that the node makes the container anew
        labels = dict(task.container.labels) | {"pystack.recreated": str(again.generation)}
        container = msgspec.structs.replace(task.container, labels=tuple(sorted(labels.items())))
        return step("replace", "asked for"), msgspec.structs.replace(again, container=container)
    if old.desired == "waiting":
        if not starting:
            return step("none", "unchanged"), old
        return step("create", "was never started: an earlier `up` ended before its turn"), task
    if old.desired == "stopped":
        return step("update", "stopped by hand: starts again"), again
    if status is not None and status.state in ("exited", "failed") and (status.exit_code or status.error):
        reason = f"exited with {status.exit_code}" if not status.error else f"failed: {status.error}"
        return step("update", f"{reason}: starts again"), again
    return step("none", "unchanged"), task


def differences(old: Container | Network, new: Container | Network) -> tuple[FieldChange, ...]:
    """Fields that differ, by path; pairs of names and values one by one."""
    out: list[FieldChange] = []
    before, after = msgspec.structs.asdict(old), msgspec.structs.asdict(new)
    for field in before:
        if before[field] == after[field]:
            continue
        if field == "files":
            out += _files(before[field], after[field])
        elif field in ("environment", "labels", "annotations", "sysctls", "options", "log_options"):
            one, two = dict(before[field]), dict(after[field])
            for key in sorted(one.keys() | two.keys()):
                if one.get(key) != two.get(key):
                    hide = field == "environment" and _SECRET.search(key)
                    values = (MASK if v is not None and hide else v for v in (one.get(key), two.get(key)))
                    out.append(FieldChange(path=f"{field}.{key}", **dict(zip(("before", "after"), values, strict=True))))
        else:
            out.append(
                FieldChange(path=field, before=msgspec.to_builtins(before[field]), after=msgspec.to_builtins(after[field]))
            )
    return tuple(out)


def _files(before: Sequence[File], after: Sequence[File]) -> list[FieldChange]:
    one = {(f.secret, f.source): f for f in before}
    two = {(f.secret, f.source): f for f in after}
    out = []
    for key in sorted(one.keys() | two.keys()):
        old, new = one.get(key), two.get(key)
        if old != new:
            path = f"{'secrets' if key[0] else 'configs'}.{key[1]}"
            if old and new and old.digest == new.digest:
                path += ".target"  # where, whose or how, but not what
            out.append(FieldChange(path=path, before=MASK if old else None, after=MASK if new else None))
    return out


def summarize(changes: tuple[FieldChange, ...]) -> str:
    """The first three of *changes* in words, and how many more there are."""
    parts = []
    for change in changes[:3]:
        section, _, name = change.path.partition(".")
        if section in ("configs", "secrets") and change.before and change.after and not name.endswith(".target"):
            parts.append(f"the content of {section[:-1]} {name} changed")
        elif change.path == "image_id":
            parts.append("the image's content moved")
        elif isinstance(change.before, (str, int, float, type(None))) and isinstance(
            change.after, (str, int, float, type(None))
        ):
            parts.append(f"{change.path} changed from {change.before!r} to {change.after!r}")
        else:
            parts.append(f"{change.path} changed")
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ", ".join(parts) + more
