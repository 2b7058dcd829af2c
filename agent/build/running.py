"""RUN: a command in a temporary container, which the engine does not list and of which only the written files remain.

It has what every container of this node has: the default capabilities, seccomp, AppArmor, masked paths, control group. What it
is mounted on does not come into the layer: the folders for that lie in a layer below its own. Steps of one build that follow
each other in one slot share a network namespace. Source: Dockerfile reference, RUN; OCI Runtime Specification, config.md.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import secrets
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent import cgroups, descriptors, files, mounts
from agent.build.errors import RunError
from agent.build.layers import Layer, Layers, dress_like, fresh
from agent.containers import runtime
from agent.contract.container import Container, Mount
from agent.contract.failpoints import failpoint
from agent.contract.printable import shown
from agent.contract.times import timestamp
from agent.engine import mount_sources, prepare
from agent.engine.records import Record
from agent.errors import BadRequestError
from agent.images import types
from agent.images.store import mountable
from agent.processes import ChildProcess

if TYPE_CHECKING:
    from agent.engine.context import EngineContext

CHUNK = 1 << 16
MOST_OUTPUT = 4 << 20
"""Bytes of output of one step that are passed on: a client that reads slowly, or not at all, costs no more memory."""
LEARN_S, LEARN_TIMES = 0.004, 50
Say = Callable[[str], None]


class Command(msgspec.Struct, kw_only=True):
    """A command with everything resolved: *mounts* are of existing folders, *secrets* are (path, content, mode, uid, gid)."""

    words: Sequence[str]
    environment: dict[str, str]
    user: str
    workdir: str
    network: str = "default"
    insecure: bool = False
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[tuple[str, bytes, int, int, int], ...] = ()


class Slot:
    """A place that runs one step at a time: its record is known to the networks only."""

    def __init__(self, record: Record) -> None:
        self.record = record


class Running:
    """The RUN steps of one build. *limits* is the template of their containers: limits, hosts and the requested network."""

    def __init__(self, engine: EngineContext, layers: Layers, folder: Path, limits: Container, at_once: int) -> None:
        self.engine, self.layers, self.folder, self.limits = engine, layers, folder, limits
        self.epoch: int | None = None
        """The latest modification time of a file that a step writes, in seconds since 1970."""
        self._free: dict[str, list[Slot]] = {}
        self._slots: list[Slot] = []
        self._places = asyncio.Semaphore(at_once)

    async def close(self) -> None:
        """Release the resources of all slots."""
        for slot in self._slots:
            await self._clean(slot.record)
            await self.engine.networks.detach(slot.record)
        self._slots.clear()

    @contextlib.asynccontextmanager
    async def slot(self, network: str) -> AsyncIterator[Slot]:
        """A slot with *network* (none, host, or the build's), as soon as one is free."""
        async with self._places:
            free = self._free.setdefault(network, [])
            slot = free.pop() if free else await self._open(network)
            yield slot  # one in which a step failed is not used again
            free.append(slot)

    async def _open(self, network: str) -> Slot:
        ident = secrets.token_hex(32)
        mode = self.limits.network_mode if network == "default" else network
        container = msgspec.structs.replace(self.limits, network_mode=mode)
        slot = Slot(Record(id=ident, name=f"build-{ident[:12]}", container=container, created=timestamp()))
        self._slots.append(slot)
        (self.folder / ident).mkdir(parents=True)  # from now on a recovery after a crash finds it
        if mode != "host" and not prepare.shares_network(slot.record):
            self.engine.networks.endpoints.reserve(slot.record)
            await self.engine.networks.open(slot.record)
            await self.engine.networks.attach(slot.record)
        return slot

    async def run(self, slot: Slot, lower: Sequence[Layer], command: Command, say: Say) -> str:
        """Run *command* on the layers *lower*. Returns the name of the layer that it wrote, "" for none. Raises RunError,
        AgentError."""
        record, engine = slot.record, self.engine
        mountable("of this step", [*(layer.name() for layer in lower), "its own", "one more"])
        record.container = self._container(record, command)
        stubs = ""
        try:
            rootfs = engine.paths.bundle(record.id) / "rootfs"
            rootfs.mkdir(parents=True, exist_ok=True)
            engine.paths.bundle(record.id).chmod(0o700)
            stubs = await self._lay_out(record, rootfs, lower, command)
            own = fresh(self.folder / record.id / "own")
            below = self.layers.paths(lower)
            dress_like(own / "upper", below[-1])
            failpoint("build.mount")
            mounts.overlay(rootfs, [*below, *([self.layers.store.layers / stubs] if stubs else [])], own)
            code = await self._executed(record, say)
            mounts.unmount(rootfs)
            if code:
                raise RunError(shown(f"The command '{' '.join(command.words)}' returned a non-zero code: {code}"), code)
            return await self.layers.take(own / "upper", self.epoch)
        finally:
            await asyncio.shield(self._clean(record, stubs))

    def _container(self, record: Record, command: Command) -> Container:
        insecure = {"privileged": True} if command.insecure else {}
        return msgspec.structs.replace(
            self.limits,
            network_mode=record.container.network_mode,
            entrypoint=(),
            command=tuple(command.words),
            environment=tuple(command.environment.items()),
            user=command.user,
            working_dir=command.workdir,
            mounts=command.mounts,
            **insecure,
        )

    async def _lay_out(self, record: Record, rootfs: Path, lower: Sequence[Layer], command: Command) -> str:
        """Write the bundle. Returns the layer, called *.tmp, with the mount points that were missing, "" if none was."""
        engine = self.engine
        first = fresh(self.folder / record.id / "stubs")
        below = self.layers.paths(lower)
        dress_like(first / "upper", below[-1])
        mounts.overlay(rootfs, below, first)
        self._check_targets(rootfs, command)
        record.container = msgspec.structs.replace(
            record.container, mounts=(*record.container.mounts, *self._secrets(record, command))
        )
        document = types.Config(rootfs=types.RootFs(()), config=types.RunConfig())
        await prepare.write_bundle(engine, record, document, rootfs, None)
        mounts.unmount(rootfs)
        name = f"{secrets.token_hex(10)}.tmp"
        self.layers.held.add(name.removesuffix(".tmp"))
        (first / "upper").rename(self.layers.store.layers / name)
        return name

    def _check_targets(self, rootfs: Path, command: Command) -> None:
        """Raises BadRequestError for a mount over a path that the kernel or the runtime provides."""
        for target in (*(m.target for m in command.mounts), *(s[0] for s in command.secrets)):
            files.make_in_root(rootfs, os.path.dirname(target) or "/", directory=True)
            where = files.resolve_in_root(rootfs, os.path.dirname(target) or "/") / os.path.basename(target)
            with contextlib.suppress(OSError):
                where = files.resolve_in_root(rootfs, target)
            inside = "/" + str(where)[len(str(rootfs)) :].lstrip("/")
            if inside == "/" or any(inside == top or inside.startswith(f"{top}/") for top in ("/proc", "/sys", "/dev")):
                raise BadRequestError(f"--mount target {target}: nothing can be mounted at {inside}")

    def _secrets(self, record: Record, command: Command) -> list[Mount]:
        """Write each secret to a file on a tmpfs."""
        if not command.secrets:
            return []
        folder = self.engine.paths.bundle(record.id) / mount_sources.SECRETS
        mount_sources.make_tmpfs(folder, "mode=0700")
        out = []
        for number, (target, data, mode, uid, gid) in enumerate(command.secrets):
            source = folder / str(number)
            files.write_atomically(source, data, 0o600)
            os.chown(source, uid, gid)
            source.chmod(mode)
            out.append(Mount(kind="bind", target=target, source=str(source), read_only=True))
        return out

    async def _executed(self, record: Record, say: Say) -> int:
        """Run the container whose bundle is written, pass on its output, and return its exit status. Kills it if cancelled."""
        engine, bundle = self.engine, self.engine.paths.bundle(record.id)
        complaints = bundle / "runtime.log"
        complaints.unlink(missing_ok=True)
        crun = engine.runtime.name == "crun"
        more = ["--cgroup-manager=disabled"] if crun and not engine.paths.cgroup_parent else []
        words = [
            engine.runtime.program,
            f"--root={engine.runtime.root}",
            f"--log={'file:' if crun else ''}{complaints}",
            *more,
            "run",
            "--bundle",
            str(bundle),
            record.id,
        ]
        failpoint("build.run")
        engine.runtime.anticipate()
        output, write = os.pipe()
        try:
            try:
                child = ChildProcess(*words, stdin=DEVNULL, stdout=write, stderr=write, start_new_session=True)
            finally:
                os.close(write)
            learning = asyncio.create_task(self._learn(record))
            try:
                await _pass_on(output, say)
                code = await child.wait()
            except BaseException:
                await asyncio.shield(self._killed(record, child))
                raise
            finally:
                learning.cancel()
        finally:
            os.close(output)
        if code and (reason := runtime.complaint(complaints)):
            return self._refused(reason, say)
        return 128 - code if code < 0 else code

    @staticmethod
    def _refused(reason: str, say: Say) -> int:
        """Report a program that cannot be run, and return the exit status of a shell for it, as Docker does."""
        say(f"{reason}\n")
        return runtime.exec_status(reason, "")

    async def _learn(self, record: Record) -> None:
        """Keep the filter that crun has compiled; its file exists while the container runs."""
        folder = self.engine.runtime.root / record.id
        for _ in range(LEARN_TIMES):
            if (folder / "seccomp.bpf").exists():
                self.engine.runtime.filters.store(record.id, folder)
                return
            await asyncio.sleep(LEARN_S)

    async def _killed(self, record: Record, child: ChildProcess) -> None:
        with contextlib.suppress(Exception):
            await self.engine.runtime.signal(record.id, 9)
        kill_group(f"{self.engine.cgroup_parent(record)}/{record.id}")
        child.kill()
        await child.wait()

    async def _clean(self, record: Record, stubs: str = "") -> None:
        """Release the resources of a step on the host, except its network, and the layer *stubs*. Its folder below this build's
        goes with the build."""
        await self.engine.runtime.delete(record.id, self.engine.cgroup_parent(record))
        bundle = self.engine.paths.bundle(record.id)
        for point in mounts.below(bundle):
            mounts.unmount(point)

        def remove() -> None:
            files.remove_tree(bundle)
            if stubs:
                files.remove_tree(self.layers.store.layers / stubs)

        await asyncio.to_thread(remove)
        self.layers.held.discard(stubs.removesuffix(".tmp"))


async def _pass_on(fd: int, say: Say) -> None:
    """Pass on the output from *fd*, in whole characters, until it ends; at most MOST_SAID bytes."""
    left = MOST_OUTPUT
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    os.set_blocking(fd, False)
    while True:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            await descriptors.wait_readable(fd)
            continue
        if left > 0 and (text := decoder.decode(data[:left], final=not data)):
            say(text)
        if 0 < left <= len(data):
            say(f"\n[output clipped, log limit {MOST_OUTPUT >> 20}MiB reached]\n")
        left -= len(data)
        if not data:
            return


def kill_group(group: str) -> None:
    """Send SIGKILL to every process in the control group *group* or below it."""
    for hierarchy in cgroups.hierarchies():
        for path, _, _ in os.walk(hierarchy / group.lstrip("/")):
            with contextlib.suppress(OSError):
                for word in (Path(path) / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(word), 9)
