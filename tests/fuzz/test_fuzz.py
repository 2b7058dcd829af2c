"""A share of the fuzzer, the same each time: `make fuzz` runs it in full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SHARE = {
    "documents": 20_000,
    "dockerfiles": 5000,
    "buildkit": 3000,
    "dns": 3000,
    "archives": 1500,
    "images": 10,
    "registry": 200,
    "api": 200,
    "server": 100,
    "git": 30,
}
"""Inputs of each area: some seconds together."""


def fuzz(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", *words]
    top = Path(__file__).parents[2]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=top)


MARKS = {"buildkit": [], "documents": [pytest.mark.slow], "dockerfiles": [pytest.mark.slow]}


@pytest.mark.parametrize("area", [pytest.param(a, marks=MARKS.get(a, [pytest.mark.kernel])) for a in SHARE])
def test_no_input_is_a_fault(area: str) -> None:
    done = fuzz("--only", area, "--inputs", str(SHARE[area]), "--seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SHARE[area]:8,} inputs" in done.stdout


def test_a_fault_is_told_with_how_to_have_it_again(tmp_path: Path) -> None:
    """The harness itself: an input that raises, one that hangs, and one that ends its process are all found."""
    script = tmp_path / "broken.py"
    script.write_text(
        "import os, sys, time\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from tests.fuzz import area\n"
        "area.HANG_S = 1.0\n"
        "class Broken(area.Area):\n"
        "    name, share = 'broken', 1.0\n"
        "    def run(self, inputs, run):\n"
        "        for i in inputs:\n"
        "            deed = {1: lambda: {}['x'], 3: lambda: os._exit(9), 5: lambda: time.sleep(60)}.get(i, lambda: None)\n"
        "            run.judge(i, deed, (ValueError,))\n"
        "done = area.drive(Broken(), 4, range(8), lambda f: print(f))\n"
        "print(done.inputs)\n"
    )
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=Path(__file__).parents[2])
    lines = done.stdout.splitlines()
    assert [line.split(": ")[1] for line in lines if line.startswith("broken")] == [
        "KeyError",
        "the worker ended with status 9",
        "it was not done after 1 s",
    ]
    assert "again: python -m tests.fuzz --only broken --seed 4 --index 3" in done.stdout
    assert lines[-1] == "6"  # of eight, two came to no end
