"""The shared corpora: what the specification's reference loader accepts and refuses, and real stacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.errors import PystackError
from orchestrator.stackfile import sources
from orchestrator.stackfile.canonical import canonicalize
from orchestrator.stackfile.load import Options, load
from orchestrator.stackfile.merge import as_mapping
from orchestrator.stackfile.source_context import SourceContext
from tests.conftest import SHARED

CORPORA = SHARED / "corpora"
LOADER = CORPORA / "compose-go"
# compose-go wants a name from its caller; here the project's folder gives one, as on Docker Compose's command line
BY_FOLDER = {"TestLoadProjectName/default", "TestLoadProjectName/project name from environment"}


def cases(name: str) -> list[Any]:
    path = LOADER / name
    if not path.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="the shared corpora are not here"))]
    return [pytest.param(case, id=case["name"]) for case in json.loads(path.read_text())]


@pytest.mark.parametrize("case", cases("index.json"))
def test_the_reference_loader_agrees(case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if case["name"] in BY_FOLDER:
        pytest.skip("the folder's name is the project's here")
    shutil.copytree(LOADER / "workdir", tmp_path / "workdir")
    base = tmp_path / ("fresh" if case["written"] else case["workdir"] or "project")
    base.mkdir(parents=True, exist_ok=True)
    there = {}
    for goal, source in case["written"].items():
        (base / goal).parent.mkdir(parents=True, exist_ok=True)
        there[source] = shutil.copy(LOADER / source, base / goal)
    files = []
    for number, file in enumerate(case["files"]):
        if file.startswith("workdir/"):
            files.append(str(tmp_path / file))
        else:
            files.append(str(there.get(file) or shutil.copy(LOADER / file, base / f"case{number}-{Path(file).name}")))
    given = case["options"] or {}
    options = Options(
        files=tuple(files),
        project_name=given.get("ProjectName") or "",
        project_directory=str(base),
        profiles=tuple(given.get("Profiles") or ()),
        consistency=not given.get("SkipConsistencyCheck", False),
    )
    monkeypatch.chdir(base)
    if case["expected"] == "ok":
        load(options, case["environment"])
    else:
        with pytest.raises(PystackError):
            load(options, case["environment"])


def plain(value: Any) -> Any:
    """Lists of NAME=VALUE and mappings are one thing, and so are lists of names and mappings of nothing."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return plain(as_mapping(value)) if any("=" in v for v in value) else sorted(value)
    if isinstance(value, list):
        return [plain(v) for v in value]
    return None if value is None else str(value)


@pytest.mark.parametrize("case", cases("merge.json"))
def test_files_merge_as_the_specification_says(case: dict[str, Any]) -> None:
    if case["kind"] == "normalize":
        return check_normal(case)
    problems: list[Any] = []
    place = SourceContext(LOADER, case["environment"], interpolate=False)
    found = sources.read([LOADER / f for f in case["files"]], place, problems).value
    want = yaml.safe_load((LOADER / case["want"]).read_text())
    assert not problems

    def shape(document: Any) -> Any:
        flat = plain(document)
        for body in flat.get("services", {}).values():
            if isinstance(body.get("networks"), list):
                body["networks"] = {}
            body.pop("links", None)  # whether service2=alias1 is the same link as service2 is nobody's rule
        return flat

    assert json.dumps(shape(found), sort_keys=True, default=str) == json.dumps(shape(want), sort_keys=True, default=str)


def check_normal(case: dict[str, Any]) -> None:
    """Names, defaults and dependencies that follow from others are written out."""
    found = load(
        Options(files=tuple(str(LOADER / f) for f in case["files"]), consistency=False, project_name="myproject"),
        case["environment"],
    )
    want = yaml.safe_load((LOADER / case["want"]).read_text())
    text = json.dumps(canonicalize(found)).replace(str(found.directory), ".").replace("myproject", "myProject")
    assert plain(json.loads(text)) == plain(want)


def real_stacks() -> list[Any]:
    found = sorted(
        p
        for folder in ("awesome-compose", "voting-app", "conformance-tests")
        for p in (CORPORA / folder).rglob("*compose*.y*ml")
    )
    return [pytest.param(p, id=str(p.relative_to(CORPORA))) for p in found] or [
        pytest.param(None, marks=pytest.mark.skip(reason="the shared corpora are not here"))
    ]


@pytest.mark.parametrize("path", real_stacks())
def test_real_stacks_load(path: Path) -> None:
    assert load(Options(files=(str(path),)), {}).stack.services
