"""From what is to what should be: the steps, each with its reason. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

import msgspec

from agent.contract.container import LIMITS, Container, File, adjusted, digest
from agent.contract.network import Network
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.planning import graph
from orchestrator.planning.following import Following
from orchestrator.planning.state import Cause, FieldChange, Plan, State, Step, Verb, as_written
from orchestrator.stackfile.model import Stack, StackContent

_SECRET = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)
MASK = "•••"


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an `up` limits or adds.

    *only* are the services that the plan is for, None for all; tasks of the services *force* are replaced without a change;
    without *starting* it is enough that all is made; with *keep* no container that exists is replaced; *again* are services
    whose tasks start again though they ended well; those of services that the file has *left_out* are not orphans."""

    only: frozenset[str] | None = None
    force: frozenset[str] = frozenset()
    remove_orphans: bool = False
    ignore_orphans: bool = False
    left_out: frozenset[str] = frozenset()
    starting: bool = True
    keep: bool = False
    again: frozenset[str] = frozenset()


class _TaskSteps(NamedTuple):
    """The *steps* of a stack's tasks, the *tasks* as they will be written, and those *kept* as they are."""

    steps: list[Step]
    tasks: list[Task]
    kept: list[Task]


def plan(
    stack: Stack,
    desired: State,
    current: State,
    *,
    revision: int,
    statuses: Mapping[str, TaskStatus] = {},
    options: PlanOptions = PlanOptions(),
) -> Plan:
    """The steps from *current* to *desired*; all of them "none" where they are equal.

    *revision* is the store's, *statuses* what nodes report, by task. The same arguments give the same plan, byte for byte."""
    waves = graph.waves(stack)
    mine = {s.name for s in stack.services}
    old_networks = {n.name: n for n in current.networks}
    desired = _for_some(stack, desired, current, options.only)
    new_networks = {n.name: n for n in desired.networks}
    made = _task_steps(stack, desired, current, statuses, options)
    removed, left, warnings = _removals(stack, desired, current, options)
    beside = [t for t in current.tasks if not t.planned and (t.desired == "oneoff" or t.service in mine)]
    used = {a.network for t in (*left, *made.kept, *beside) for a in t.container.attachments}
    gone = [n for n in current.networks if n.name not in new_networks]
    steps = [
        *(_network_step(network, old_networks.get(network.name)) for network in desired.networks),
        *_volume_steps(desired, current),
        *_content_steps(desired.contents, current.contents),
        *made.steps,
        *removed,
        *(
            Step(action="remove", kind="network", name=n.name, cause="unused", reason="nothing in the file uses it")
            for n in gone
            if n.name not in used
        ),
    ]
    volumes = {v.name: v for v in (*current.volumes, *desired.volumes)}
    state = State(
        networks=(*new_networks.values(), *(n for n in gone if n.name in used)),
        volumes=tuple(volumes.values()),
        tasks=(*made.tasks, *left, *made.kept, *beside),
        contents=desired.contents,
        evicted=desired.evicted,
        pending=desired.pending,
    )
    return Plan(
        stack=stack.name,
        revision=revision,
        basis=_basis(current),
        steps=tuple(steps),
        desired=state,
        waves=waves,
        warnings=tuple(warnings),
    )


def _for_some(stack: Stack, desired: State, current: State, only: Set[str] | None) -> State:
    """*desired* without the networks and volumes that are not there yet and that none of the services *only* uses. Source:
    `docker compose up SERVICE`."""
    if only is None:
        return desired
    containers = [
        *(s.container for s in stack.services if s.name in only),
        *(t.container for t in desired.tasks if t.service in only),
        *(t.container for t in current.tasks),
    ]
    networks = {a.network for c in containers for a in c.attachments} | {n.name for n in current.networks}
    volumes = {m.source for c in containers for m in c.mounts} | {v.name for v in current.volumes}
    return msgspec.structs.replace(
        desired,
        networks=tuple(n for n in desired.networks if n.name in networks),
        volumes=tuple(v for v in desired.volumes if v.name in volumes),
    )


def _basis(current: State) -> str:
    """A digest of the stack's state, as 16 hex digits."""
    parts = (current.networks, current.volumes, current.tasks, current.contents)
    before = [sorted(part, key=lambda one: one.name) for part in parts]
    return hashlib.sha256(msgspec.json.encode(before, order="deterministic")).hexdigest()[:16]


def _volume_steps(desired: State, current: State) -> list[Step]:
    """One step for each volume that is not external."""
    old = {v.name for v in current.volumes}
    steps = []
    for volume in desired.volumes:
        if volume.external:
            continue
        new = volume.name not in old
        bound = volume.node and not volume.shared
        steps.append(
            Step(
                action="create" if new else "none",
                kind="volume",
                name=volume.name,
                cause="absent" if new else "unchanged",
                node=volume.node if bound else "",
                reason="unchanged" if not new else "not there yet; its users stay where it is" if bound else "not there yet",
            )
        )
    return steps


def _task_steps(
    stack: Stack, desired: State, current: State, statuses: Mapping[str, TaskStatus], options: PlanOptions
) -> _TaskSteps:
    """One step for each task that the plan is for, or that follows one of them; dependencies come first."""
    mine = {s.name for s in stack.services}
    wanted = mine if options.only is None else options.only
    gone = {e.task for e in desired.evicted}
    kept = {
        t.name: t for t in current.tasks if t.service in mine and t.service not in wanted and t.planned and t.name not in gone
    }
    old_tasks = {t.name: t for t in current.tasks}
    following = Following(stack)
    in_turn = {
        s.name
        for s in stack.services
        if s.is_job and s.max_concurrent and any(t.service == s.name and t.desired == "running" for t in current.tasks)
    }
    rank = {name: number for number, wave in enumerate(graph.waves(stack)) for name in wave}
    steps: list[Step] = []
    tasks: list[Task] = []
    for task in sorted(desired.tasks, key=lambda t: (rank[t.service], t.service, t.index)):
        old, status = old_tasks.get(task.name), statuses.get(task.name)
        if task.service in wanted:
            if options.keep and old is not None and old.node == task.node:
                task = msgspec.structs.replace(task, container=old.container, container_name=old.container_name)
            step, made = _task_step(task, old, status, options)
            if old and old.desired == "waiting" and task.service in in_turn and made.container == old.container:
                step, made = _waits_its_turn(task, old) or (step, made)
            if step.action == "none":
                step, made = following.step(task, old, status) or (step, made)
        elif follower := following.step(task, old, status):  # nothing of it is to change, but what it depends on does
            step, made = follower
            kept.pop(task.name, None)
        else:
            continue
        if step.action != "update" or old is None or made.generation != old.generation:  # else it runs on
            following.note(step, task.service, known=old is not None)
        steps.append(step)
        tasks.append(made)
    return _TaskSteps(steps, tasks, list(kept.values()))


def _removals(stack: Stack, desired: State, current: State, options: PlanOptions) -> tuple[list[Step], list[Task], list[str]]:
    """The steps that remove tasks; the orphans (tasks of services that left the file) that stay; and a warning for each."""
    mine = {s.name for s in stack.services}
    wanted = mine if options.only is None else options.only
    names = {t.name for t in desired.tasks}
    steps: list[Step] = []
    left: list[Task] = []
    warnings: list[str] = []
    cause: Cause
    steps += [
        Step(action="remove", kind="task", name=e.task, node=e.node, cause="preempted", reason=e.reason)
        for e in desired.evicted
    ]
    gone = {e.task for e in desired.evicted}
    for task in current.tasks:
        if task.desired == "oneoff" or task.name in gone or (task.run and task.service in mine):
            continue
        if task.service not in mine and (task.service in options.left_out or not options.remove_orphans):
            left.append(task)
            continue
        if task.service not in mine:
            cause, reason = "orphaned", "its service left the file"
        elif task.service in wanted and task.name not in names:
            cause, reason = "scaled", "one replica fewer"
        else:
            continue
        steps.append(Step(action="remove", kind="task", name=task.name, node=task.node, cause=cause, reason=reason))
    orphans = [t.container_name or t.name for t in left if t.service not in options.left_out]
    if orphans and not options.ignore_orphans:
        names_left = " ".join(orphans)
        warnings.append(
            f"Found orphan containers ([{names_left}]) for this project: no service of the file has them; "
            "--remove-orphans takes them away"
        )
    warnings += [f"{e.task} stays pending: it {e.reason}, and no node has room for it" for e in desired.pending]
    return steps, left, warnings


def _network_step(network: Network, old: Network | None) -> Step:
    if old is None:
        return Step(action="create", kind="network", name=network.name, cause="absent", reason="not there yet")
    # who carries it and which services have an address on it follows from the tasks, and disturbs none of them
    beside = {"hosts": network.hosts, "vips": network.vips, "service_pools": network.service_pools}
    changes = differences(msgspec.structs.replace(old, **beside), network)
    if changes:
        reason = summarize(changes)
        return Step(action="replace", kind="network", name=network.name, cause="changed", changes=changes, reason=reason)
    return Step(action="none", kind="network", name=network.name, reason="unchanged")


def _content_steps(new: Sequence[StackContent], old: Sequence[StackContent]) -> list[Step]:
    """One step for each config or secret; no step shows its content."""
    before = {(c.kind, c.name): c.digest for c in old}
    steps = []
    for one in new:
        known = before.pop((one.kind, one.name), None)
        if known is None:
            steps.append(Step(action="create", kind=one.kind, name=one.name, cause="absent", reason="not there yet"))
        elif known == one.digest:
            steps.append(Step(action="none", kind=one.kind, name=one.name, reason="unchanged"))
        else:
            steps.append(Step(action="update", kind=one.kind, name=one.name, cause="changed", reason="its content changed"))
    for kind, name in before:
        steps.append(Step(action="remove", kind=kind, name=name, cause="unused", reason="nothing in the file uses it"))
    return steps


def _task_step(task: Task, old: Task | None, status: TaskStatus | None, options: PlanOptions) -> tuple[Step, Task]:
    """The step for one task, and the task as it will be written."""

    def step(action: Verb, cause: Cause, reason: str, changes: tuple[FieldChange, ...] = ()) -> Step:
        return Step(action=action, kind="task", name=task.name, node=task.node, cause=cause, reason=reason, changes=changes)

    fresh, task = task, _as_made(task, old)
    again = msgspec.structs.replace(task, generation=(old.generation if old else 0) + 1)
    runs = status is not None and status.state in ("running", "paused")
    if old is None:
        return step("create", "absent", "not there yet"), task
    if old.node != task.node:
        return step("replace", "moved", f"moves from {old.node} to {task.node}"), fresh
    if digest(old.container) != digest(task.container) or old.container_name != task.container_name:
        changes = differences(old.container, task.container)
        if runs and old.desired == "running" and adjusted(old.container, task.container):
            return step("update", "changed", _adjusts(old.container, task.container), changes), task
        return step("replace", "changed", summarize(changes) or "its name changed", changes), fresh
    if task.service in options.force:
        # another label is another digest, so that the node recreates the container
        labels = dict(task.container.labels) | {RECREATED: str(again.generation)}
        container = msgspec.structs.replace(task.container, labels=tuple(sorted(labels.items())))
        return step("replace", "forced", "asked for"), msgspec.structs.replace(again, container=container)
    rests = old.desired in ("waiting", "stopped") or (status is not None and status.state in ("exited", "failed"))
    if rests and not options.starting:
        return step("none", "unchanged", "unchanged"), old
    if old.desired == "waiting":
        return step("create", "not started", "was never started: an earlier `up` ended before its turn"), task
    if old.desired == "stopped":
        return step("update", "stopped", "was stopped: starts again"), again
    if rests and status and (status.exit_code or status.error or task.service in options.again):
        reason = f"failed: {status.reason}" if status.reason else f"exited with {status.exit_code}"
        return step("update", "ended", f"{reason}: starts again"), again
    if old.trust != task.trust:
        return step("update", "changed", "what its images may be changed: it holds from its next start"), task
    return step("none", "unchanged", "unchanged"), task


RECREATED = "pystack.recreated"
"""The label of a container that was recreated because a user asked for it."""


def _as_made(task: Task, old: Task | None) -> Task:
    """*task* with the label by which *old* was recreated: that it has none of its own is not a change."""
    mark = dict(old.container.labels).get(RECREATED) if old else None
    if mark is None:
        return task
    labels = dict(task.container.labels) | {RECREATED: mark}
    container = msgspec.structs.replace(task.container, labels=tuple(sorted(labels.items())))
    return msgspec.structs.replace(task, container=container)


def _adjusts(old: Container, new: Container) -> str:
    """What a task that goes on running is given: why, in words."""
    kept = list(zip(old.attachments, new.attachments, strict=True))
    words = []
    if any((a.ipv4, a.ipv6) != (b.ipv4, b.ipv6) for a, b in kept):
        words.append("is given its new addresses: its network changed")
    words += [
        f"its bandwidth on {a.network} becomes {b.bandwidth or 'unlimited'}" for a, b in kept if a.bandwidth != b.bandwidth
    ]
    if names := [name for name in LIMITS if getattr(old, name) != getattr(new, name)]:
        words.append(f"its limits change ({', '.join(names)})")
    return f"{', '.join(words)}, while it runs"


def _waits_its_turn(task: Task, old: Task) -> tuple[Step, Task] | None:
    """The step for a task of a job of which so many run at a time, others do now, and it has still to begin."""
    if old.node != task.node:
        return None
    reason = "unchanged: it begins when another task of its job has ended"
    return Step(action="none", kind="task", name=task.name, node=task.node, reason=reason), old


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
            out.append(FieldChange(path=field, before=as_written(before[field]), after=as_written(after[field])))
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
