"""Volumes: a directory each, with its description beside it.

The directory has the data of a local volume; one of a server is mounted on it while a container uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent import files, mounts, quotas
from agent.contract.failpoints import failpoint
from agent.contract.times import timestamp
from agent.contract.volume import VolumeHost, volume_driver
from agent.errors import AgentError, BadRequestError, ConflictError, NotFoundError, of_worker
from agent.paths import Paths
from agent.trees import process
from agent.volumes import drivers

MOUNT_S, TRIES = 30, 10

NAME_BYTES = 255
"""The longest name of a file. Source: linux/limits.h, NAME_MAX."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")


def check_name(name: str, prefix: str = "") -> None:
    """Raises BadRequestError where a volume cannot be called so, or a file behind *prefix*."""
    if not _NAME.match(name):
        raise BadRequestError(f"volume name {name!r}: letters, digits and _ . - only, beginning with a letter or digit")
    if len(prefix + name) > NAME_BYTES:
        raise BadRequestError(f"volume name {name[:20]}…: more than {NAME_BYTES - len(prefix)} characters")


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A volume of this node. *fresh* until its first user has filled it from the image."""

    name: str
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False
    fresh: bool = True
    created: str = ""


class Volumes:
    """One node's volumes: data and description."""

    def __init__(self, paths: Paths) -> None:
        self.root = paths.volumes
        self.root.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.keys = paths.root / "ssh"
        self._mounting: dict[str, asyncio.Lock] = {}
        self._filling: dict[str, asyncio.Lock] = {}
        self.all: dict[str, VolumeRecord] = {}
        for path in self.root.glob("*/volume.json"):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=VolumeRecord)
            except msgspec.DecodeError:
                # the data counts: a damaged description is replaced, and the volume never filled again
                record = VolumeRecord(name=path.parent.name, fresh=False)
            self.all[record.name] = record
            if (begun := path.with_name("filling")).exists():
                self._empty(record)
                begun.unlink()
        for path in (*self.root.glob("*.tmp"), *self.root.glob(".incoming-*")):
            for point in mounts.below(path):
                mounts.unmount(point)
            files.remove_tree(path)

    def data(self, name: str) -> Path:
        """The directory of the data of volume *name*, whether it exists or not."""
        return self.root / name / "_data"

    def create(
        self,
        name: str,
        *,
        driver: str = "local",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
        anonymous: bool = False,
    ) -> VolumeRecord:
        """Create a volume, unless it exists; an existing one is returned unchanged."""
        check_name(name)
        if name in self.all:
            return self.all[name]
        driver = volume_driver(driver)
        drivers.check(name, driver, options or {})
        if size := drivers.size(name, options or {}):
            quotas.require(self.root, f"volume {name}: driver_opts.size")
        failpoint("volume.create")
        (self.root / name / "_data").mkdir(parents=True, mode=0o755, exist_ok=True)
        if size:
            quotas.limit((self.data(name),), size)
        record = VolumeRecord(
            name=name,
            driver=driver,
            labels=labels or {},
            options=options or {},
            anonymous=anonymous,
            created=timestamp(),
        )
        self._save(record)
        return record

    def _save(self, record: VolumeRecord) -> None:
        files.write_atomically(self.root / record.name / "volume.json", msgspec.json.encode(record))
        self.all[record.name] = record

    def get(self, name: str) -> VolumeRecord:
        """The volume. Raises NotFoundError."""
        if name not in self.all:
            raise NotFoundError(f"get {name}: no such volume")
        return self.all[name]

    async def mount(self, name: str, home: VolumeHost | None) -> None:
        """Mount the volume, unless it is mounted or a directory of this node. *home* is the node that exports it, None if
        that is this one. Raises AgentError, after 30 s at the latest."""
        record = self.get(name)
        how = drivers.mounting(name, record.driver, record.options, home, str(self.keys))
        if how is None:
            return
        async with self._mounting.setdefault(name, asyncio.Lock()):
            data = self.data(name)
            if await asyncio.to_thread(_alive, data):
                return
            if not shutil.which(how.needs):
                raise AgentError(f"volume {name}: {how.needs} is not installed on this node: it comes with {how.package}")
            if home and home.host_key:
                self._pin_host_key(home)
            mounts.unmount(data)  # a dead one
            failpoint("volume.mount")
            for left in reversed(range(TRIES if home else 1)):
                problem = await _run(*how.command, str(data), *how.after)
                if not problem:
                    return
                if left:  # its home may learn of this node a moment later
                    await asyncio.sleep(0.5)
            raise AgentError(f"volume {name}: {how.command[-1]} cannot be mounted: {problem}")

    def is_served(self, name: str) -> bool:
        """Whether the volume was mounted from somewhere, rather than being a folder of this node."""
        return name in self._mounting

    def is_responsive(self, name: str) -> bool:
        """Whether the volume's server answers. Blocks until that is known."""
        return _alive(self.data(name))

    def _pin_host_key(self, home: VolumeHost) -> None:
        """Pin the host key of *home*: only a server with this key is accepted."""
        known = self.keys / "known_hosts"
        line = f"{home.node} {home.host_key}"
        lines = known.read_text().splitlines() if known.exists() else []
        if line not in lines:
            kept = [one for one in lines if not one.startswith(f"{home.node} ")]
            files.write_atomically(known, "\n".join([*kept, line, ""]).encode())

    def key(self) -> str:
        """The public SSH key of this node, made at the first call; "" if ssh-keygen is not installed."""
        private = self.keys / "id_ed25519"
        public = private.with_suffix(".pub")
        if not public.exists():
            if not shutil.which("ssh-keygen"):
                return ""
            self.keys.mkdir(mode=0o700, exist_ok=True)
            private.unlink(missing_ok=True)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "pystack", "-f", str(private)], check=True)
        return " ".join(public.read_text().split()[:2])

    def adopt(self, arrived: Path, record: VolumeRecord, *, replace: bool = False) -> None:
        """The folder *arrived*, of this same file system, becomes a volume; with *replace* in place of the one that is there,
        whose data are deleted. At no moment there is none, or a part of one."""
        files.write_atomically(arrived / "volume.json", msgspec.json.encode(record))
        if size := drivers.size(record.name, record.options):
            quotas.require(self.root, f"volume {record.name}: driver_opts.size")
            quotas.limit((arrived / "_data",), size)
        if replace:
            files.exchange(arrived, self.root / record.name)
        else:
            arrived.rename(self.root / record.name)
        self.all[record.name] = record
        if replace:
            failpoint("backup.exchanged")
            files.remove_tree(arrived)

    def release(self, users: Callable[[str], list[str]]) -> None:
        """Unmount volumes that no container uses; *users* returns those of a volume."""
        for name in self.all:
            if mounts.is_mounted(self.data(name)) and not users(name):
                mounts.unmount(self.data(name))

    async def fill(self, name: str, rootfs: Path, target: str) -> None:
        """Copy the files of the image at *target* into a new volume, with owners and attributes, as Docker does.

        Who else uses the volume waits until it is whole. What was copied half-way, because the disk was full or the agent
        was killed, is deleted and copied again: to take it for the volume's content would lose files without a word."""
        if not self.get(name).fresh:
            return
        async with self._filling.setdefault(name, asyncio.Lock()):
            record = self.get(name)
            if not record.fresh:
                return
            data, begun = self.data(name), self.root / name / "filling"
            if not any(data.iterdir()):
                begun.touch()
                failpoint("volume.fill")
                try:
                    reply = await process.asked("filling", (str(rootfs), target, str(data)))
                    if "error" in reply:
                        raise of_worker(reply, AgentError, f"volume {name}: cannot be filled from the image: ")
                except BaseException:  # the client may have gone away, too
                    self._empty(record)
                    begun.unlink()
                    raise
                failpoint("volume.filled")
            self._save(msgspec.structs.replace(record, fresh=False))
            begun.unlink(missing_ok=True)
        self._filling.pop(name, None)

    def _empty(self, record: VolumeRecord) -> None:
        """Delete what was copied into a new volume; not from a server's, where another node may have written since."""
        data = self.data(record.name)
        if record.fresh and not mounts.is_mounted(data):
            for path in list(data.iterdir()):
                files.remove_tree(path)

    def remove(self, name: str, users: list[str]) -> None:
        """Delete a volume and its data. Raises ConflictError while a container uses it."""
        self.get(name)
        if users:
            raise ConflictError(f"remove {name}: volume is in use - [{', '.join(users)}]")
        if mounts.below(self.root / name):
            mounts.unmount(self.data(name))
            if mounts.below(self.root / name):  # the data of a server is not ours to delete
                raise ConflictError(f"volume {name} is still mounted: see what uses {self.data(name)}")
        failpoint("volume.remove")
        doomed = self.root / f"{name}.tmp"
        (self.root / name).rename(doomed)
        if "size" in self.all[name].options:
            quotas.forget(doomed / "_data")
        del self.all[name]
        self._filling.pop(name, None)
        files.remove_tree(doomed)


async def _run(*command: str) -> str:
    """Run *command*. Returns its error output if it fails or does not end in time."""
    with tempfile.TemporaryFile() as errors:  # a pipe would stay open with the server that mounting may leave behind
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
        try:
            async with asyncio.timeout(MOUNT_S):
                code = await child.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
            return f"no answer within {MOUNT_S} s"
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines() or [f"exit status {code}"]
        return "; ".join(lines[:2]) if code else ""


def _alive(data: Path) -> bool:
    """Whether something is mounted at *data* that answers; a FUSE server that died leaves a mount that does not."""
    try:
        return mounts.is_mounted(data) and bool(os.statvfs(data))
    except OSError:
        return False
