"""`runtime:` of a service: the program that its name stands for makes the container, and does what is later asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.kernel
FILE = """
services:
  noted: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, runtime: noted, post_start: [{command: touch /ready}]}
  runc: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, runtime: runc}
  crun: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, runtime: crun}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a runtime that is runc, and first writes down what it is asked."""
    folder = tmp_path_factory.mktemp("runtime")
    program = folder / "noted"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\nexec runc "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Pystack]:
    with cluster_of(1) as pystack:
        root = Path(pystack.environment["PYSTACK_ROOT"])
        (root / "config.yml").write_text(f"runtimes: {{noted: [{folder / 'noted'}]}}\n")
        before = (root / "run/server.pid").read_text()
        pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")

        def back() -> None:
            assert (root / "run/server.pid").read_text() != before
            assert pystack("node", "ls", check=False).returncode == 0

        eventually(back, 20)
        yield pystack


def verbs(folder: Path, ident: str) -> set[str]:
    """What the runtime was asked to do with a container."""
    lines = (folder / "asked").read_text().splitlines()
    known = ("create", "start", "exec", "pause")
    return {word for line in lines if ident in line for word in line.split() if word in known}


def test_each_service_runs_on_the_runtime_that_it_names(stack: Stack, folder: Path) -> None:
    stack.up(FILE)
    rows = stack.ps()
    assert {r["state"] for r in rows.values()} == {"running"}
    ident = str(rows["noted-1"]["id"])
    assert stack.exec("noted", "ls", "/ready") == "/ready\n"
    stack.run("pause", "noted")
    stack.run("unpause", "noted")
    assert verbs(folder, ident) >= {"create", "start", "exec", "pause"}
    assert not any(verbs(folder, str(rows[n]["id"])) for n in ("runc-1", "crun-1"))
    stack.down()
    assert not stack.ps()


def test_a_runtime_that_is_not_there_is_told_with_those_that_are(stack: Stack) -> None:
    done = stack.up("services:\n  a: {image: busybox, command: sleep 1, runtime: nosuch}\n", check=False)
    assert done.returncode == 1
    assert "invalid runtime name: nosuch: there is crun, noted, runc" in done.stderr
