"""A lab with the image of the attackers, and what each attack came to in each kind of container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lab import lab as labs
from tests.conftest import Pystack, Stack, cluster_of, eventually
from tests.escape import kit
from tests.escape.rows import CONTAINERS, ROWS
from tests.images import archive, busybox_rootfs

Outcomes = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Container → attack → one of gained, held and broken → words."""


@contextmanager
def field_of(runtime: str) -> Iterator[Pystack]:
    with cluster_of(1) as pystack:
        root = Path(pystack.environment["PYSTACK_ROOT"])
        (root / "config.yml").write_text(f"runtime: {runtime}\n")
        pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")

        def back() -> None:
            assert pystack("node", "ls", check=False).returncode == 0

        eventually(back, 20)
        path = archive(root / "attacker.tar", [busybox_rootfs(), kit.python_layer()], name="docker.io/library/attacker:latest")
        pystack("image", "load", "-i", str(path))
        yield pystack


@pytest.fixture(scope="session", params=["runc", "crun"])
def field(request: pytest.FixtureRequest) -> Iterator[Pystack]:
    with field_of(request.param) as pystack:
        yield pystack


@pytest.fixture(scope="session")
def outcomes(field: Pystack, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """All attacks of ROWS, tried in all containers that they name: one `up` for all."""
    tries: dict[str, list[str]] = {}
    for row in ROWS:
        for container in (row.on, row.off):
            attacks = tries.setdefault(container, [])
            attacks += [row.attack] if row.attack not in attacks else []
    words = json.dumps({"numbers": kit.numbers()})
    services: dict[str, Any] = {
        container.replace(" ", "-"): {
            "image": "attacker", "command": ["python3", "/inside.py", *attacks], "environment": {"FIELD": words.replace("$", "$$")},
            "stop_signal": "SIGKILL", **CONTAINERS[container],
        } for container, attacks in tries.items()
    }
    stack = Stack(field, tmp_path_factory.mktemp("escape"))
    stack.up(json.dumps({"services": services}), "--no-wait")
    try:
        def ended() -> None:
            assert {row["state"] for row in stack.ps().values()} == {"exited"}

        eventually(ended, 90)
        return {c: said(stack.run("logs", "--no-log-prefix", c.replace(" ", "-")).stdout) for c in tries}
    finally:
        stack.down()


def said(text: str) -> dict[str, dict[str, str]]:
    return {line.pop("attack"): line for line in map(json.loads, text.splitlines())}
