"""Three containers that take memory, processes, disk and log as fast as they can: their limits hold, their neighbours live."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import bombs, resources
from tests.conftest import Pystack, Stack

pytestmark = [pytest.mark.kernel, pytest.mark.long]
SECONDS = 20


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    with resources.loop(tmp_path / "image") as made:
        yield made


def used(lab: Pystack, ident: str) -> dict[str, int]:
    """Memory, processes and bytes of logs of a container."""
    import subprocess

    socket = lab.environment["PYSTACK_HOST"].removeprefix("unix://")
    url = f"http://x/v1/nodes/n1/engine/containers/{ident}/stats?stream=0&one-shot=1"
    done = subprocess.run(["curl", "-sf", "--unix-socket", socket, url], capture_output=True, text=True, check=True)
    now = json.loads(done.stdout)
    folder = Path(lab.environment["PYSTACK_ROOT"]) / "containers" / ident
    return {
        "memory": now["memory_stats"].get("usage", 0),
        "pids": now["pids_stats"].get("current", 0),
        "log": sum(file.stat().st_size for file in folder.glob("log*")),
    }


def test_limits_hold_and_neighbours_live(lab: Pystack, stack: Stack, device: str) -> None:
    stack.up(bombs.text(device, 3))
    address = next(iter(stack.ps()["web-1"]["addresses"].values()))  # type: ignore[attr-defined]
    most = {"memory": 0, "pids": 0, "log": 0}
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for name, row in stack.ps().items():
            if name.startswith("bomb") and row["state"] == "running":
                now = used(lab, str(row["id"]))
                most = {key: max(most[key], now[key]) for key in most}
        assert "404" in lab.on("n1", "curl", "-s", f"http://{address}/nothing")
    assert bombs.MEMORY_MIB / 2 < most["memory"] / (1 << 20) <= bombs.MEMORY_MIB
    assert bombs.PIDS / 2 < most["pids"] <= bombs.PIDS
    # a file is exchanged when the agent sees that it is full: on a busy machine some 300 MB may come meanwhile, of gigabytes
    assert 0 < most["log"] <= 512 << 20
    assert stack.ps()["web-1"]["restarts"] == 0
    stack.exec("web", "true")
