"""Gives containers their SELinux labels, and the files that the engine and its user put into them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from agent.contract import selinux as contract
from agent.contract.container import Mount
from agent.engine import sharing
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import NotFoundError
from agent.isolation import selinux
from agent.trees.relabel import relabel


def assign(context: EngineContext, record: Record) -> None:
    """Give *record* its labels, unless it has them; those of the containers whose IPC and PID namespaces it is to be in, where
    they have changed. A pair of categories is free again once no record has it. Raises BadRequestError."""
    policy = context.selinux
    if policy is None:
        record.process_label = record.mount_label = ""
        return
    donors = [] if contract.options(record.container.security_opt) else _donors(context, record)
    if record.mount_label and not donors:
        return
    others = (r.mount_label for r in context.containers.records.values() if r.id != record.id)
    made = selinux.labels(policy, record.container, selinux.levels(others), [d.process_label for d in donors])
    selinux.require_known(made)
    record.process_label, record.mount_label = made


def _donors(context: EngineContext, record: Record) -> list[Record]:
    """The containers whose IPC and PID namespaces *record* is to be in, as far as they are there."""
    found = []
    for mode in (record.container.ipc_mode, record.container.pid_mode):
        with contextlib.suppress(NotFoundError):  # its start says so
            found.append(sharing.owner_of(context.containers, record, mode))
    return [donor for donor in found if donor and donor.mount_label]


def notes(context: EngineContext, record: Record) -> list[str]:
    """What the user is to know: labels that were asked for, and are not set."""
    asked = [o for o in contract.options(record.container.security_opt) if o != contract.DISABLE]
    if context.selinux or not asked:
        return []
    return [f"label={asked[0]} has no effect: this node sets no SELinux labels"]


async def relabelled(record: Record, mount: Mount, source: Path) -> None:
    """Give the *source* of a volume, or of a bind with z, the label for all containers, or with Z for this one. Raises
    BadRequestError."""
    if record.mount_label and (mount.selinux or mount.kind == "volume"):
        label = record.mount_label if mount.selinux == "Z" else selinux.shared(record.mount_label)
        await asyncio.to_thread(relabel, source, label)
