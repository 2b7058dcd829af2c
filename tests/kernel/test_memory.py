"""A container that is out of memory: the reason stands wherever somebody looks."""

from __future__ import annotations

import pytest

from tests.conftest import Stack, eventually

pytestmark = pytest.mark.kernel
FILE = """
services:
  eater:
    image: busybox
    command: dd if=/dev/zero of=/dev/null bs=100M count=1
    mem_limit: 16m
    memswap_limit: 16m
"""


def test_out_of_memory_is_the_reason_in_ps_and_plan(stack: Stack) -> None:
    stack.up(FILE, check=False)  # it may have been seen running before it ate

    def ended() -> None:
        row = next(iter(stack.ps().values()))
        assert (row["state"], row["exit_code"], row["error"]) == ("exited", 137, "out of memory")

    eventually(ended, 30)
    assert "eater-1: out of memory" in stack.run("ps").stderr
    assert "failed: out of memory: starts again" in stack.run("plan").stdout
    assert '"OOMKilled": true' in stack.pystack("container", "inspect", f"{stack.name}-eater-1").stdout
