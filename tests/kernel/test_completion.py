"""What shells are offered: the names that there are now, by the scripts that the command prints, in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack

STACK = """
services:
  alpha: {image: busybox, command: sleep 1000, volumes: ["data:/d"], stop_signal: SIGKILL}
  beta: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
volumes: {data: {}}
"""
BASH = """
COMP_WORDS=({words} "$1"); COMP_CWORD={at}
source <(pystack completion bash)
_pystack_completion pystack; printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def offered(lab: Pystack, place: Path, words: str, incomplete: str = "") -> set[str]:
    """What bash offers behind *words*."""
    programs = place / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "pystack"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator "$@"\n')
    program.chmod(0o755)
    root = str(Path(__file__).parents[2])
    environment = lab.environment | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": root,
        "PYSTACK_DEBUG_COMPLETION": "1",
    }
    done = subprocess.run(
        ["bash", "-c", BASH.format(words=words, at=len(words.split())), "-", incomplete],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_a_shell_is_offered_the_names_that_there_are(lab: Pystack, stack: Stack) -> None:
    stack.up(STACK)
    own = f"-p {stack.name}"
    place = stack.directory
    for words, wanted in (
        (f"pystack logs {own}", {"alpha", "beta"}),
        (f"pystack logs {own} alpha", {"beta"}),
        (f"pystack why {own}", {f"{stack.name}-alpha-1", f"{stack.name}-beta-1"}),
        (f"pystack scale {own}", {"alpha=", "beta="}),
        ("pystack ps -p", {stack.name}),
        ("pystack node inspect", {"n1"}),
        ("pystack why-not alpha", {"n1"}),
        ("pystack image rm", {"busybox:latest"}),
        ("pystack volume inspect", {f"{stack.name}_data"}),
    ):
        found = offered(lab, place, words)
        assert wanted <= found, (words, found)
    assert offered(lab, place, "pystack", "rollb") == {"rollback"}
    assert "--remove-orphans" in offered(lab, place, "pystack up", "--rem")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_take_their_scripts(lab: Pystack, shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(lab("completion", shell).stdout)
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
