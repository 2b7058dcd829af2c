"""The agent as a whole: engine, converger and API on a unix socket; for the all-in-one server and for nodes alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from aiohttp import web

from agent import settings
from agent.api import app
from agent.engine.converge import Converger
from agent.engine.engine import Engine
from agent.paths import Paths


class Agent:
    """A running agent. `converger` takes manifests and reports status."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.engine = Engine(paths, settings.load(paths))
        self.converger = Converger(self.engine)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Recover what was there, then listen on the Docker socket."""
        await self.converger.recover()
        self._runner = web.AppRunner(app.make(self.converger), access_log=None, handler_cancellation=True)
        await self._runner.setup()
        await web.SockSite(self._runner, bind(self.paths.docker_socket)).start()

    async def stop(self) -> None:
        """Stop serving; containers run on."""
        if self._runner:
            await self._runner.cleanup()
        await self.converger.close()
        self.paths.docker_socket.unlink(missing_ok=True)


def bind(path: Path) -> socket.socket:
    """A listening unix socket that only its owner and group can use, made so before anybody can connect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    previous = os.umask(0o117)
    try:
        sock.bind(str(path))
    finally:
        os.umask(previous)
    return sock
