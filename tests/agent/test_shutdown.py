"""What systemd runs before it stops an agent: it drains where the machine goes down, and nowhere else."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from orchestrator.transport.bootstrap import UNIT, payload

PACKAGED = Path(__file__).parents[2] / "packaging/systemd"


def said(folder: Path, state: str, *options: str) -> str:
    """What the command says where systemd is in *state*, and no agent answers."""
    (folder / "systemctl").write_text(f"#!/bin/sh\necho {state}\n")
    (folder / "systemctl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYSTACK_ROOT": str(folder)}
    words = [sys.executable, "-m", "agent.shutdown", *options]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stderr


def test_a_restart_of_the_agent_alone_asks_nobody(tmp_path: Path) -> None:
    assert said(tmp_path, "running") == ""


@pytest.mark.parametrize(("state", "options"), [("stopping", ()), ("running", ("--anyhow",))])
def test_a_machine_goes_down_also_where_the_agent_does_not_answer(tmp_path: Path, state: str, options: tuple[str, ...]) -> None:
    assert "the agent does not answer, so nothing was moved" in said(tmp_path, state, *options)


def test_each_unit_runs_it_and_each_node_has_it() -> None:
    units = [UNIT, *((PACKAGED / name).read_text() for name in ("pystack.service", "pystack-agent.service"))]
    assert all("-m agent.shutdown --within 60\n" in unit for unit in units)
    with tarfile.open(fileobj=io.BytesIO(payload())) as sent:
        assert any(name.endswith("/agent/shutdown.py") for name in sent.getnames())
