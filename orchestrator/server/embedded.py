"""The all-in-one server: control plane and agent in one process, with the embedded store."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import sys

from aiohttp import web

from agent.daemon import Agent, bind
from agent.errors import AgentError
from agent.paths import locate
from orchestrator.errors import PystackError
from orchestrator.server import api
from orchestrator.server.controller import Controller
from orchestrator.store.sqlite import SqliteStore


async def serve() -> None:
    """Run until SIGTERM, SIGINT or a request to shut down. Containers run on afterwards."""
    paths = locate()
    paths.root.mkdir(parents=True, exist_ok=True, mode=0o711)
    paths.run.mkdir(parents=True, exist_ok=True, mode=0o711)
    store = await SqliteStore.open(paths.root / "store.db")
    try:
        agent = Agent(paths)
    except AgentError as error:
        await store.close()
        raise PystackError(str(error)) from error
    await agent.start()
    controller = Controller(store, platform.node().split(".")[0] or "local", paths.docker_socket, paths.run)
    await controller.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(api.make(controller, stop), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, bind(paths.control_socket)).start()
    await stop.wait()
    paths.control_socket.unlink(missing_ok=True)
    await runner.cleanup()
    await controller.close()
    await agent.stop()


def main() -> None:
    import uvloop

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    try:
        uvloop.run(serve())
    except PystackError as error:
        print(f"pystack server: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
