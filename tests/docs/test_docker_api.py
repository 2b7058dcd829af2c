"""docs/docker-api.md has a row for each path of the Docker Engine API that is served, with its methods."""

from __future__ import annotations

import re
from pathlib import Path

from agent.api import versions
from agent.api.table import ROUTES

DOCUMENT = Path(__file__).parents[2] / "docs/docker-api.md"


def test_each_route_has_its_row() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| ([A-Z, a-z]+) \|", DOCUMENT.read_text(), re.M)
    told = {(path, method) for path, methods in rows for method in methods.split(", ")}
    served = {(re.sub(r"\{(\w+):[^}]*\}", r"{\1}", r.path), r.method) for r in ROUTES if r.method != "*"}
    assert {pair for pair in told if pair[1] != "all"} == served
    whole = [path for path, methods in rows if methods == "all"]
    assert len(whole) == sum(r.method == "*" for r in ROUTES)
    swarm = next(r.path for r in ROUTES if "swarm" in r.path)
    assert any(all(part in path for part in re.findall(r"\w+", swarm[len("/{part:") : swarm.index("}")])) for path in whole)


def test_the_versions_are_those_that_are_served() -> None:
    text = re.sub(r"\s+", " ", DOCUMENT.read_text())
    assert f"Versions {versions.text(versions.OLDEST)} to {versions.text(versions.NEWEST)} are served" in text
