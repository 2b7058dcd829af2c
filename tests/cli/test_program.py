"""The program's end: what it says gets out, or it says that it did not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "orchestrator"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["schema"], ["config", "--help"]])
def test_output_that_finds_no_room_is_an_error_in_one_line(words: list[str], unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


def test_a_reader_that_has_enough_is_no_error_worth_a_word() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        done = subprocess.run([*COMMAND, "schema"], stdout=nobody, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_all_of_the_output_comes_out_of_a_pipe() -> None:
    done = subprocess.run([*COMMAND, "schema"], capture_output=True, check=True)
    assert done.stdout.startswith(b"{")
    assert done.stdout.endswith(b"}\n")
