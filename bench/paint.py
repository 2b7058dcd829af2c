"""How soon the page is there with 500 tasks: the first paint, and when all tasks of a stack are listed, in a real Chromium over
loopback. The server has the tasks in memory and no node; each load is by a browser that knows nothing of the page yet.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median

from aiohttp import web

from agent.contract.container import Container
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from bench.rows import Row, row, size
from orchestrator.server.api.app import make_app
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import StackRecord
from orchestrator.stackfile.model import Service, Stack
from orchestrator.store.sqlite import SqliteStore
from orchestrator.ui import api
from orchestrator.ui.board import Board

TASKS, SERVICES, ROUNDS = size(500, 20), 10, size(5, 1)
GOAL = 1.0
"""Seconds until the first paint."""
GOAL_OF_ROWS = 2.0
LOOK_S = 60
READ = """
const [wanted, end] = arguments;
const look = () => {
  const rows = document.querySelectorAll('main tbody tr').length;
  const paint = performance.getEntriesByName('first-contentful-paint')[0];
  if (rows < wanted || !paint) return requestAnimationFrame(look);
  end([paint.startTime, performance.now()]);
};
look();
"""


def measure() -> dict[str, Row]:
    """Rows of the first paint and of the whole list, the median of some loads."""
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            raise RuntimeError(f"the page's benchmark needs {program}: `make setup`")
    with tempfile.TemporaryDirectory(prefix="pystack-bench-") as folder, _served(Path(folder)) as url:
        found = [_load(f"{url}/ui/#/stacks/s", Path(folder) / f"profile{n}") for n in range(ROUNDS)]
    return {
        f"page_first_paint_{TASKS}_tasks": row(median(paint for paint, _ in found), GOAL),
        f"page_all_rows_{TASKS}_tasks": row(median(rows for _, rows in found), GOAL_OF_ROWS),
    }


def _load(url: str, profile: Path) -> tuple[float, float]:
    """Seconds from the navigation to the first paint, and to the last row."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,900"):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={profile}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(LOOK_S)
        driver.get(url)
        paint, rows = driver.execute_async_script(READ, TASKS)
        return paint / 1000, rows / 1000
    finally:
        driver.quit()


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The address of a server on loopback, which runs in a thread of its own."""
    loop, ready, over, found = asyncio.new_event_loop(), threading.Event(), asyncio.Event(), []

    async def serve() -> None:
        async with _server(folder) as url:
            found.append(url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        if not ready.wait(LOOK_S):
            raise RuntimeError("the server of the page's benchmark did not begin")
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


@asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[str]:
    store = await SqliteStore.open(folder / "store.db")
    plane = ControlPlane(store, "n1", folder / "d", folder / "run", folder / "keys")
    await plane.state.load()
    _fill(plane)
    board = Board(plane)
    board.start()
    runner = web.AppRunner(make_app(plane, asyncio.Event(), [api.extension(board, folder / "pasted")]), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        board.close()
        await runner.cleanup()
        await store.close()


def _fill(plane: ControlPlane) -> None:
    """A stack of TASKS tasks that run."""
    image = Container(image="registry.example.org/shop/web:1.2.3")
    services = tuple(Service(name=f"web{n}", container=image, where="stack.yml:3") for n in range(SERVICES))
    plane.state.stacks["s"] = StackRecord(stack=Stack(name="s", services=services), revision=1, updated="2026-01-01T00:00:00Z")
    for n in range(TASKS):
        service, index = f"web{n % SERVICES}", n // SERVICES + 1
        name = f"s-{service}-{index}"
        plane.state.tasks[name] = Task(name=name, stack="s", service=service, node="n1", container=image, index=index)
        plane.statuses.by_task[name] = TaskStatus(task=name, state="running", image=image.image, container=f"{n:064x}")


def main() -> int:
    """As a benchmark of its own."""
    from bench.__main__ import main as run

    return run(["paint", *sys.argv[1:]])


if __name__ == "__main__":
    raise SystemExit(main())
