"""The guide's first page, typed as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.conftest import Pystack

PAGE = Path(__file__).parents[2] / "docs/guide/first-stack.md"


def test_the_first_page_of_the_guide_does_what_it_says(lab: Pystack, tmp_path: Path) -> None:
    text = PAGE.read_text()
    (stack,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.S | re.M)
    lines = [line for block in re.findall(r"^```console\n(.*?)^```$", text, re.S | re.M) for line in block.splitlines()]
    place = tmp_path / "first"
    (place / "www").mkdir(parents=True)
    (place / "www/index.html").write_text("hello\n")
    (place / "stack.yml").write_text(stack)
    said = {}
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["$", "pystack"]
        said[" ".join(words[2:])] = lab(*words[2:], cwd=place).stdout
    assert "create" in said["plan"]
    assert said["ps"].count("running") == 2
    assert "hello" in said["logs visitor"]
    assert len(said["history"].splitlines()) >= 2
    assert lab.json("ps", "-p", "first", "--format", "json") == []
