"""The sources of a container's mounts: volumes (created and filled), images, files of the manifest, directories of the host."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from pathlib import Path

import msgspec

from agent import files, mounts
from agent.containers import userns
from agent.contract.container import File, Mount
from agent.contract.sealing import UnsealableError, unseal
from agent.engine import selinux_labels
from agent.engine.config_templates import filled
from agent.engine.context import EngineContext
from agent.engine.records import Record
from agent.errors import BadRequestError, NotFoundError
from agent.images.types import RunConfig
from agent.isolation import selinux
from agent.trees.tree import Tree
from netplugins.linux.uapi import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC

MAPPED = "mapped"
"""The directory of a bundle for mounts of parts of volumes, and for ID-mapped mounts."""
SECRETS = "secrets"
"""The directory of a bundle that is a tmpfs."""
DOCKER_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")


async def sources(
    context: EngineContext, record: Record, image: RunConfig, rootfs: Path, user: Path | None
) -> list[tuple[Mount, Path]]:
    """Every mount of *record* with its source on the host; each gets a place in *rootfs*. *user* is its user namespace, None
    for the node's. Volumes are made and filled on the way. Raises AgentError."""
    out: list[tuple[Mount, Path]] = []
    for target, mount in _wanted(context, record, image).items():
        if not target.startswith("/") or target == "/" or ".." in target.split("/"):
            raise BadRequestError(f"mount target {target!r} must be an absolute path below /")
        source = Path()
        if mount.kind == "volume":
            source = await _volume(context, record, mount, rootfs)
            await selinux_labels.relabelled(record, mount, source)
            if mount.subpath:
                source = _held(source, mount, context.paths.bundle(record.id) / MAPPED / f"subpath{len(out)}")
            if user:
                point = context.paths.bundle(record.id) / MAPPED / f"volume{len(out)}"
                userns.bind_idmapped(source, point, user)
                source = point
        elif mount.kind == "image":
            source = _image(context, record, mount)
        elif mount.kind == "bind":
            source = _folder(context, mount)
            await selinux_labels.relabelled(record, mount, source)
        is_file = mount.kind in ("bind", "image") and not source.is_dir()
        files.make_in_root(rootfs, target, directory=not is_file)
        out.append((mount, source))
    out += [_given(context, record, image, rootfs, number) for number in range(len(record.container.files))]
    return out


def below(context: EngineContext, record: Record, path: str) -> Mount | None:
    """The mount of *record* that has *path* in it, or that has the volume called *path*; None if none has."""
    image = context.image_config(record)
    inside = [
        mount
        for target, mount in _wanted(context, record, image).items()
        if (mount.kind == "volume" and mount.source == path) or path == target or path.startswith(f"{target}/")
    ]
    return max(inside, key=lambda mount: len(mount.target), default=None)


def _wanted(context: EngineContext, record: Record, image: RunConfig) -> dict[str, Mount]:
    """By target: the mounts of other containers, then its own, then the volumes of its image that are missing."""
    wanted: dict[str, Mount] = {}
    for donor in record.container.volumes_from:
        name, _, access = donor.removeprefix("container:").partition(":")
        wanted |= _inherited(_donor(context, record, name), read_only=access == "ro")
    for mount in record.container.mounts:
        wanted[mount.target.rstrip("/") or "/"] = mount
    for target in image.volumes or {}:
        wanted.setdefault(target.rstrip("/"), Mount(kind="volume", target=target))
    return wanted


def _donor(context: EngineContext, record: Record, name: str) -> Record:
    """The container that `volumes_from` names: a task of that service of the same stack, or any. Raises NotFoundError."""
    records = context.containers.records.values()
    task = next((r for r in records if r.task and r.stack == record.stack and r.service == name), None)
    return task or context.containers.find(name)


def _inherited(donor: Record, *, read_only: bool) -> dict[str, Mount]:
    inherited = {m.target: m for m in donor.container.mounts if m.kind != "tmpfs"}
    for target, volume in donor.anonymous.items():
        inherited[target] = Mount(kind="volume", target=target, source=volume)
    if read_only:
        return {t: msgspec.structs.replace(m, read_only=True) for t, m in inherited.items()}
    return inherited


def _folder(context: EngineContext, mount: Mount) -> Path:
    """The file or directory of the host that is bound. Raises BadRequestError if it does not exist."""
    source = Path(mount.source)
    if mount.source in DOCKER_SOCKETS and not source.exists():
        source = context.paths.docker_socket  # a container that asks for Docker's API gets it
    if not source.exists():
        if not mount.create_host_path:
            raise BadRequestError(f"bind mount source {source} does not exist on this node")
        source.mkdir(parents=True)
    return source


def _given(context: EngineContext, record: Record, image: RunConfig, rootfs: Path, number: int) -> tuple[Mount, Path]:
    """A config or secret, written where its container is to see it."""
    file = record.container.files[number]
    in_memory = file.secret or file.template  # a template may name secrets
    directory = context.paths.bundle(record.id) / (SECRETS if in_memory else "files")
    directory.mkdir(mode=0o700, exist_ok=True)
    if in_memory:
        make_tmpfs(directory, "mode=0700", record.mount_label)
    source = directory / str(number)
    read = functools.partial(_content, context)
    files.write_atomically(source, filled(file, record.container, image, read) if file.template else read(file), file.mode)
    os.chown(source, record.ids + file.uid, record.ids + file.gid)
    source.chmod(file.mode)
    if not in_memory:
        selinux.set_label(source, record.mount_label)
    files.make_in_root(rootfs, file.target, directory=False)
    return Mount(kind="bind", target=file.target, source=str(source), read_only=True), source


def make_tmpfs(folder: Path, options: str, label: str = "") -> None:
    """Make *folder* a tmpfs with mount *options*, unless it is one already; *label* is the SELinux label of all that will be in
    it. Raises AgentError."""
    folder.mkdir(exist_ok=True)
    if not mounts.is_mounted(folder):
        mounts.mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options + mounts.labelled(label))


def image_point(mount: Mount) -> str:
    """Where in the bundle an image is mounted that the container sees below one of its paths."""
    return f"image-{hashlib.sha256(mount.target.encode()).hexdigest()[:12]}"


def _image(context: EngineContext, record: Record, mount: Mount) -> Path:
    image = context.images.find(mount.image_id or mount.source)
    point = context.paths.bundle(record.id) / image_point(mount)
    point.mkdir(exist_ok=True)
    if not mounts.is_mounted(point):
        lower = context.images.lower(image)
        if record.mount_label:  # a bind of one layer would leave its files with their label on disk
            own = point.with_name(f"{point.name}-own")
            for part in (own, own / "upper", own / "work"):
                part.mkdir(exist_ok=True)
            mounts.overlay(point, lower, own, label=record.mount_label)
        else:
            mounts.layers(point, lower)
    if not mount.subpath:
        return point
    try:
        return files.resolve_in_root(point, mount.subpath)
    except OSError as error:
        raise BadRequestError(f"image {mount.source} has no {mount.subpath}: {error.strerror}") from error


def _content(context: EngineContext, file: File) -> bytes:
    """The content of a config or secret. Raises BadRequestError if the manifest lacks it, or it is sealed to another host."""
    kind = "secret" if file.secret else "config"
    there = context.contents.get(file.digest)
    if there is None:
        raise BadRequestError(
            f"the content of {kind} {file.source} did not come with the manifest: `pystack up` again sends it"
        )
    if not there.sealed:
        return there.data
    try:
        return unseal(context.paths.keys, there.data, file.digest)
    except UnsealableError as error:
        raise BadRequestError(f"{kind} {file.source} cannot be opened: {error}; `pystack up` again seals it again") from error


def anonymous(context: EngineContext, record: Record, target: str) -> str:
    """The name of the anonymous volume of *record* at *target*, created if it is missing."""
    name = record.anonymous.get(target) or os.urandom(32).hex()
    record.anonymous[target] = name
    labels = {"com.docker.compose.project": record.stack} if record.stack else {}
    context.volumes.create(name, labels={**labels, "com.docker.volume.anonymous": ""}, anonymous=True)
    return name


async def _volume(context: EngineContext, record: Record, mount: Mount, rootfs: Path) -> Path:
    name = mount.source
    if not name:
        name = anonymous(context, record, mount.target)
    else:
        declared = context.manifest_volumes.get(name)
        if declared and declared.external and name not in context.volumes.all:
            raise NotFoundError(f"volume {name} is declared external but does not exist: `pystack volume create {name}`")
        context.volumes.create(
            name,
            driver=declared.driver if declared else "local",
            labels=declared.own_labels if declared else {},
            options=dict(declared.options) if declared else {},
        )
    await context.volumes.mount(name, declared.host if (declared := context.manifest_volumes.get(name)) else None)
    if not mount.nocopy:
        await context.volumes.fill(name, rootfs, mount.target)
    return context.volumes.data(name)


def _held(volume: Path, mount: Mount, point: Path) -> Path:
    """A subpath of the directory *volume*, mounted at *point*: a container that writes to the volume could replace it by a link
    before the runtime mounts it (CVE-2017-1002101). Raises BadRequestError if it does not exist."""
    with Tree.at(volume) as tree:
        try:
            fd = tree.open(mount.subpath, os.O_PATH)
        except OSError as error:
            raise BadRequestError(f"volume {mount.source} has no {mount.subpath}: {error.strerror}") from error
        try:
            point.parent.mkdir(parents=True, exist_ok=True)
            if mounts.is_mounted(point):
                mounts.unmount(point)
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                point.mkdir(exist_ok=True)
            else:
                point.touch()
            mounts.mount(f"/proc/self/fd/{fd}", point, "none", MS_BIND | MS_REC)
        finally:
            os.close(fd)
    return point
