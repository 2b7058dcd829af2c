"""`x-priority`: what it may be, and where it can have an effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.model import Stack
from orchestrator.stackfile.problem import StackFileError

FILE = """
services:
  a:
    image: i
    x-priority: VALUE
"""


def read(folder: Path, value: str) -> Stack:
    (folder / "stack.yml").write_text(FILE.replace("VALUE", value))
    return load(Options(files=(str(folder / "stack.yml"),), project_name="t"), {}).stack


@pytest.mark.parametrize(("value", "priority"), [("0", 0), ("10", 10), ("-1000000", -1000000), ("'7'", 7)])
def test_a_whole_number_is_read(tmp_path: Path, value: str, priority: int) -> None:
    assert read(tmp_path, value).services[0].priority == priority


WRONG = {
    "text": ("high", r":5:\d+: services.a.x-priority: must be a whole number from -1000000 to 1000000, not high"),
    "a fraction": ("1.5", r":5:\d+: services.a.x-priority: must be "),
    "too much": ("1000001", r":5:\d+: services.a.x-priority: must be a whole number from .* not 1000001"),
    "a list": ("[1]", r":5:\d+: services.a.x-priority: "),
    "of mode global": (
        "1\n    deploy: {mode: global}",
        r":5:\d+: services.a.x-priority: tasks of mode global are on each node",
    ),
}


@pytest.mark.parametrize(("value", "why"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_a_problem_with_its_place(tmp_path: Path, value: str, why: str) -> None:
    with pytest.raises(StackFileError, match=why):
        read(tmp_path, value)
