"""Logs: rotation that loses nothing while it is watched, bounds that hold, and drivers."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Stack

pytestmark = pytest.mark.kernel


def folder(stack: Stack, task: str) -> Path:
    return Path(stack.pystack.environment["PYSTACK_ROOT"]) / "containers" / str(stack.ps()[task]["id"])


def following(stack: Stack, service: str) -> subprocess.Popen[str]:
    words = ["-f", str(stack.file), "logs", "-p", stack.name, "-f", "--no-log-prefix", service]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words], env=stack.pystack.environment, stdout=subprocess.PIPE, text=True,
    )
    guard = threading.Timer(60 * PATIENCE, process.kill)  # a line that never comes is a failure, not a test without end
    guard.daemon = True
    guard.start()
    return process


def test_a_flood_stays_within_its_bounds_and_others_are_served(stack: Stack) -> None:
    stack.up("""
services:
  flood:
    image: busybox
    command: sh -c "yes $$(head -c 200 /dev/zero | tr '\\\\0' x) | head -n 400000; echo last; sleep 1000"
    stop_signal: SIGKILL
    logging: {options: {max-size: 2m, max-file: "3"}}
  quiet: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
""")
    follow = following(stack, "flood")
    assert follow.stdout
    for line in follow.stdout:
        if line == "last\n":
            break
    else:
        raise AssertionError("the last line never came")
    follow.kill()
    follow.communicate()
    files = sorted(p.name for p in folder(stack, "flood-1").glob("log*"))
    assert files == ["log", "log.1", "log.2"]
    # 92 MB were written as fast as conmon can; what is kept is what came between a few looks, and a busy machine looks late
    assert sum(p.stat().st_size for p in folder(stack, "flood-1").glob("log*")) < 75 << 20
    assert stack.exec("quiet", "echo", "here") == "here\n"
    assert stack.run("logs", "--no-log-prefix", "-n", "1", "flood").stdout == "last\n"


def test_a_follower_misses_nothing_over_rotations(stack: Stack) -> None:
    """Numbered lines, faster than rotation looks: each arrives once and in order."""
    stack.write("""
services:
  count:
    image: busybox
    command:
      - sh
      - -c
      - i=0; while [ $$i -lt 12000 ]; do echo line $$i; i=$$((i+1)); [ $$((i % 400)) -ne 0 ] || sleep 0.05; done; sleep 1000
    stop_signal: SIGKILL
    logging: {options: {max-size: 40k, max-file: "9"}}
""")
    stack.up()
    done = following(stack, "count")
    assert done.stdout
    seen = []
    for line in done.stdout:
        seen.append(int(line.split()[1]))
        if seen[-1] == 11999:
            break
    done.kill()
    done.communicate()
    assert seen == list(range(seen[0], 12000))
    assert seen[0] == 0
    assert len(list(folder(stack, "count-1").glob("log*"))) > 2
    text = stack.run("logs", "--no-log-prefix", "-n", "3000", "count").stdout
    assert [int(line.split()[1]) for line in text.splitlines()] == list(range(9000, 12000)), "a tail over several files"


def test_a_service_without_a_log(stack: Stack) -> None:
    stack.up("""
services:
  a: {image: busybox, command: sh -c "echo x; sleep 1000", stop_signal: SIGKILL, logging: {driver: none}}
""")
    done = stack.run("logs", check=False)
    assert "keeps no log" in done.stderr
    assert not list(folder(stack, "a-1").glob("log*"))
