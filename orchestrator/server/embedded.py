"""The all-in-one server: control plane and agent in one process, with the embedded store."""

from __future__ import annotations

import platform

from aiohttp import web

from agent.daemon import Agent, bind, prepared, run, stop_event
from agent.errors import AgentError
from orchestrator.errors import PystackError
from orchestrator.server import api
from orchestrator.server.controller import Controller
from orchestrator.store.sqlite import SqliteStore


async def serve() -> None:
    """Run until SIGTERM, SIGINT or a request to shut down. Containers run on afterwards."""
    paths = prepared()
    store = await SqliteStore.open(paths.root / "store.db")
    try:
        agent = Agent(paths)
    except AgentError as error:
        await store.close()
        raise PystackError(str(error)) from error
    await agent.start()
    controller = Controller(store, platform.node().split(".")[0] or "local", paths.docker_socket, paths.run)
    await controller.start()
    stop = stop_event()
    runner = web.AppRunner(api.make(controller, stop), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, bind(paths.control_socket)).start()
    await stop.wait()
    paths.control_socket.unlink(missing_ok=True)
    await runner.cleanup()
    await controller.close()
    await agent.stop()


def main() -> None:
    run(serve, "server", PystackError)


if __name__ == "__main__":
    main()
