"""Children of the agent: how they end, and what they do not inherit."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from subprocess import DEVNULL

import uvloop

from agent.processes import ChildProcess


def test_a_child_ends_as_it_says_to_everybody_who_waits() -> None:
    async def both() -> list[int]:
        child = ChildProcess("sh", "-c", "read x; exit 7", stdin=read)
        assert child.returncode is None
        waiting = [asyncio.create_task(child.wait()) for _ in range(2)]
        await asyncio.sleep(0)
        os.write(write, b"go\n")
        codes = await asyncio.gather(*waiting)
        child.kill()  # it is nobody's number by now
        return [*codes, await child.wait()]

    read, write = os.pipe()
    try:
        assert uvloop.run(both()) == [7, 7, 7]
    finally:
        os.close(read)
        os.close(write)


def test_a_killed_child_has_the_signal_for_its_status() -> None:
    async def kill() -> int:
        child = ChildProcess("sleep", "100", stdin=DEVNULL)
        child.kill()
        return await child.wait()

    assert uvloop.run(kill()) == -signal.SIGKILL


def test_children_ignore_no_signal_because_the_agent_was_told_to() -> None:
    code = (
        "import os; from agent.processes import *; reset_ignored_signals(); os.kill(os.getpid(), signal.SIGHUP);"
        "print(subprocess.run(['grep', 'SigIgn', '/proc/self/status'], capture_output=True, text=True).stdout)"
    )
    done = subprocess.run(["nohup", sys.executable, "-c", code], capture_output=True, text=True, check=True, stdin=DEVNULL)
    assert int(done.stdout.split()[-1], 16) & 1 << signal.SIGHUP - 1 == 0
