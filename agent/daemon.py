"""The agent as a whole: engine, converger and API on a unix socket; part of the all-in-one server, or a node's only process."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

from aiohttp import web

from agent import activation, memory, programs, rootless, settings
from agent.api import app, doors
from agent.api.app_keys import UPLINK
from agent.build.builder import Builder
from agent.contract.half_open import Runner
from agent.contract.tunnel import Listener
from agent.engine.converge import Converger
from agent.engine.engine import Engine
from agent.errors import AgentError
from agent.images import garbage
from agent.joining import join_at_start
from agent.manifest_watcher import EtcdManifestWatcher
from agent.paths import Paths, locate
from agent.processes import reset_ignored_signals
from agent.rootless.namespaces import enter, leave
from agent.settings import Door
from agent.uplink import Uplink

BACKLOG = 4096
"""Clients that wait to be taken in; a connection beyond that is refused at once. Source: unix(7); listen(2)."""
SHUTDOWN_S = 1.0
"""How long answers that have no end, such as streams of statuses and logs, may keep a stopping agent."""


class Agent:
    """A running agent. `converger` takes manifests and reports status. With an *uplink* it may join a cluster by itself."""

    def __init__(self, paths: Paths, uplink: Uplink | None = None) -> None:
        self.paths = paths
        self._lock = _only_one(paths.root)
        self.engine = Engine(paths, settings.load(paths))
        self.converger = Converger(self.engine)
        self.builder = Builder(self.engine.context)
        self.manifest_watcher = EtcdManifestWatcher(paths.root, self.converger.apply)
        self._uplink = uplink
        self._chores: list[asyncio.Task[None]] = []
        self._runners: list[web.AppRunner] = []
        self._listeners: list[Listener] = []
        self._sockets: list[Path] = []

    async def start(self) -> None:
        """Recover what was there, then listen on the Docker socket."""
        logging.getLogger("aiohttp.server").addFilter(app.OneLine())
        await self.builder.recover()
        await self.converger.recover()
        if self.builder.torn:
            await asyncio.to_thread(self.engine.images.collect)
        await self._listen()
        self.manifest_watcher.start()
        if self._uplink:
            self._uplink.start()
            joining = join_at_start(self.paths, self._uplink, self.converger.manifest.member)
            self._chores.append(asyncio.create_task(joining, name="join"))
        rule = self.engine.settings.image_gc
        if rule.age or rule.disk:
            self._chores.append(asyncio.create_task(garbage.watch(self.engine.images, rule), name="garbage"))
        self._chores.append(asyncio.create_task(self.engine.disk.run(), name="disk"))
        if self.engine.settings.reserve.disk:
            self._chores.append(asyncio.create_task(self.engine.reserve.run(), name="reserve"))
        self._chores.append(asyncio.create_task(self.converger.keep_lease(), name="lease"))
        self._chores.append(asyncio.create_task(memory.trim_heap_periodically(), name="memory"))

    async def _listen(self) -> None:
        """Serve the Docker socket and the configured doors. Raises BadRequestError if one cannot be opened."""
        payload = self.engine.settings.docker
        applications = [
            (
                app.make(self.converger, self.builder, self.manifest_watcher),
                Door(path=str(self.paths.docker_socket), group=payload.group),
            ),
            *((app.make_door(self.converger, self.builder, door), door) for door in payload.doors),
        ]
        for application, door in applications:
            runner = Runner(application, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S)
            self._runners.append(runner)
            if self._uplink and door.path == str(self.paths.docker_socket):
                application[UPLINK] = self._uplink
            await runner.setup()
            path = Path(door.path) if door.path else self.paths.run / f"door{len(self._runners)}.sock"
            sock = bind(path)
            self._sockets.append(path)
            doors.opened_to(path, door.group)
            await web.SockSite(runner, sock, backlog=BACKLOG).start()
            if door.listen:
                self._listeners.append(doors.listen(door, path))

    def open_to_docker_group(self, path: Path) -> None:
        """Let those who may use the node's Docker socket use that at *path* too. Raises BadRequestError."""
        doors.opened_to(path, self.engine.settings.docker.group)

    def mount_into(self, application: web.Application, prefix: str) -> None:
        """Have another application of this process answer for the node too, below *prefix*."""
        app.mount_into(application, prefix, self.converger, self.builder, self.manifest_watcher)

    async def stop(self) -> None:
        """Stop serving. Containers run on, unless the host itself goes down: then each is asked to end, and given its time."""
        await self.manifest_watcher.stop()
        if self._uplink:
            await self._uplink.stop()
        for chore in self._chores:
            chore.cancel()
        for listener in self._listeners:
            listener.close()
        for runner in self._runners:
            await runner.cleanup()
        await self.converger.close()
        if await _host_goes_down():
            await self.engine.shut_down()
        for path in self._sockets:
            activation.unlink(path)
        os.close(self._lock)
        if rootless.inside() and not any(r.running for r in self.engine.containers.records.values()):
            leave(self.paths.run)


async def _host_goes_down() -> bool:
    """Source: systemctl(1), is-system-running."""
    if not Path("/run/systemd/system").is_dir():
        return False
    try:
        asked = await asyncio.create_subprocess_exec(
            "systemctl", "is-system-running", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(10):
            output, _ = await asked.communicate()
    except (OSError, TimeoutError):
        return False
    return output.strip() == b"stopping"


def _only_one(root: Path) -> int:
    """Two agents on one state folder would undo each other's work. Raises AgentError; the lock goes with the process."""
    lock = os.open(root / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AgentError(f"an agent runs on {root} already: stop it, or set PYSTACK_ROOT for a second instance") from None
    return lock


def bind(path: Path) -> socket.socket:
    """A listening unix socket that only its owner and group can use, made so before anybody can connect; or the one at *path*
    that systemd made."""
    if given := activation.socket_at(path):
        return given
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    previous = os.umask(0o117)
    try:
        sock.bind(str(path))
    finally:
        os.umask(previous)
    return sock


def prepared() -> Paths:
    """Where this instance lives, its folders made."""
    paths = locate()
    for directory in (paths.root, paths.run):
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    return paths


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def run(serve: Callable[[], Coroutine[None, None, None]], name: str, refusal: type[Exception]) -> None:
    """Be the process `pystack NAME`; a *refusal* is one line on stderr and exit status 1."""
    import uvloop

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    programs.complete_path()
    reset_ignored_signals()
    memory.limit_malloc_arenas()
    try:
        if os.geteuid() == 0:
            programs.require()
        enter(locate().run)  # before there is a second thread
        uvloop.run(serve())
    except (refusal, AgentError) as error:
        print(f"pystack {name}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


async def serve() -> None:
    """Run the agent of this host until SIGTERM or SIGINT; containers run on afterwards."""
    paths = prepared()
    agent = Agent(paths, Uplink(paths.root, paths.run, paths.docker_socket))
    await agent.start()
    await stop_event().wait()
    await agent.stop()


def main() -> None:
    """Run the agent until a signal ends it."""
    run(serve, "agent", AgentError)
