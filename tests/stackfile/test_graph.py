"""In which order services stand that depend on each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.stackfile.graph import dependencies_first
from orchestrator.stackfile.load import Options, load


@pytest.mark.parametrize(
    ("edges", "order"),
    [
        ({"web": ["db"], "db": [], "app": []}, ["app", "db", "web"]),
        ({"a": ["z"], "z": ["m"], "m": []}, ["m", "z", "a"]),
        ({"a": ["c", "b"], "c": [], "b": ["c"]}, ["c", "b", "a"]),
    ],
)
def test_each_is_after_what_it_needs(tmp_path: Path, edges: dict[str, list[str]], order: list[str]) -> None:
    file = tmp_path / "compose.yml"
    file.write_text("services:\n" + "".join(f"  {n}: {{image: i, depends_on: {d}}}\n" for n, d in edges.items()))
    loaded = load(Options(files=(str(file),)), {})
    assert dependencies_first({s.name: s for s in loaded.services}) == order
