"""A container that is out of memory: the reason stands wherever somebody looks."""

from __future__ import annotations

import pytest

from tests.conftest import Stack

pytestmark = pytest.mark.kernel
FILE = """
services:
  eater:
    image: busybox
    command: sh -c "head -c 100000000 /dev/zero | exec tail -n 1 > /tmp/x; exit 137"
    mem_limit: 16m
    memswap_limit: 16m
"""


def test_out_of_memory_is_the_reason_in_up_ps_and_plan(stack: Stack) -> None:
    done = stack.up(FILE, check=False)
    assert done.returncode == 1
    assert "out of memory" in done.stderr
    row = next(iter(stack.ps().values()))
    assert (row["state"], row["exit_code"]) == ("exited", 137)
    assert row["error"] == "out of memory"
    shown = stack.run("ps")
    assert "eater-1: out of memory" in shown.stderr
    assert "failed: out of memory: starts again" in stack.run("plan").stdout
    assert '"OOMKilled": true' in stack.pystack("container", "inspect", f"{stack.name}-eater-1").stdout
