"""The limits that a container's control groups keep: written when it has been made, and changed while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from agent.containers import block_devices, limits
from agent.containers.block_devices import BlockDevice
from agent.containers.bundle import not_kept, resources
from agent.containers.limits import File
from agent.containers.usage import has_group
from agent.contract.container import Container, Mount
from agent.engine import mount_sources
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import AgentError, BadRequestError


def begin(context: EngineContext, record: Record) -> None:
    """Write what the runtime has not, before the first instruction of *record*. Raises AgentError."""
    group, disks = _group(context, record), devices(context, record, record.container)
    texts = _possible(limits.left_to_us(record.container, disks, v2=context.cgroup2))
    if texts and not has_group(group):
        record.notes.append(not_kept({controller for controller, _, _ in texts}))
    elif texts:
        record.notes += [*_of_weights(record.container, disks), *limits.write(group, texts)]


def change(context: EngineContext, record: Record, new: Container) -> None:
    """Give *record*, which runs, the limits of *new*. Raises AgentError, and it has those that it had."""
    group, old, v2 = _group(context, record), record.container, context.cgroup2
    resources(new, record.notes, cgroup2=v2)
    before, after = (limits.values(c, devices(context, record, c), v2=v2) for c in (old, new))
    # the scheduler of a disk may be BFQ since the last time, and another weight of the group takes those for disks away
    again = {file: text for file, text in after.items() if limits.is_weight_of_disk(file)}
    texts = _possible(limits.changes(before, after) | again)
    if not texts:
        return
    if not has_group(group):
        raise AgentError(f"container {record.name} has no control group of its own that could keep limits")
    record.notes += _of_weights(new, devices(context, record, new))
    try:
        record.notes += limits.write(group, texts)
    except AgentError:
        with contextlib.suppress(AgentError):
            list(limits.write(group, _possible(limits.changes(after, before))))
        raise


def devices(context: EngineContext, record: Record, container: Container) -> dict[str, BlockDevice]:
    """The disk of each path of the limits of disk I/O of *container*: a device of the node, the name of a volume, a path below
    a mount, or / for the writable layer. Raises BadRequestError."""
    found: dict[str, BlockDevice] = {}
    for path in {one.path for one in container.blkio}:
        target = mount_sources.below(context, record, path)
        if path.startswith("/dev/") and (target is None or Path(path).is_block_device()):
            found[path] = block_devices.at(path)
        elif target is None and path == "/":
            found[path] = block_devices.under(context.paths.container(record.id), "its writable layer")
        elif target is None:
            raise BadRequestError(
                f"blkio_config: {path} is neither a block device of the node (/dev/…) nor below a mount of the container; / is "
                "its own layer"
            )
        else:
            found[path] = _of_mount(context, record, target, path)
    return found


def _of_mount(context: EngineContext, record: Record, mount: Mount, path: str) -> BlockDevice:
    if mount.kind == "tmpfs":
        raise BadRequestError(f"blkio_config: {path} is in memory, not on a disk")
    if mount.kind == "volume":
        name = mount.source or record.anonymous[mount.target]
        return block_devices.under(context.volumes.data(name), f"volume {name}")
    if mount.kind == "image":
        return block_devices.under(context.paths.container(record.id), "its image")
    rest = PurePosixPath(path).relative_to(mount.target) if path.startswith("/") else PurePosixPath()
    inner = Path(mount.source) / rest
    return block_devices.under(inner if inner.exists() else Path(mount.source), path)


def _of_weights(container: Container, disks: dict[str, BlockDevice]) -> Iterator[str]:
    """What of the weights has no effect, and why."""
    switch = "`echo bfq > /sys/block/DISK/queue/scheduler` switches it on"
    for one in container.blkio:
        if one.what == "weight" and not block_devices.has_weights(disks[one.path]):
            yield f"the blkio weight of {one.path} has no effect: the scheduler of its disk is not BFQ; {switch}"
    if container.blkio_weight and not block_devices.any_has_weights():
        yield f"blkio weights have no effect on this node: no disk of it has the scheduler BFQ; {switch}"


def _possible(texts: dict[File, str]) -> dict[File, str]:
    """*texts* without the weights for disks that know none."""

    def known(file: File) -> bool:
        return not limits.is_weight_of_disk(file) or block_devices.has_weights(BlockDevice(*map(int, file[2].split(":"))))

    return {file: text for file, text in texts.items() if known(file)}


def _group(context: EngineContext, record: Record) -> str:
    return f"{context.cgroup_parent(record)}/{record.id}"
