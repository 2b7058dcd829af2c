"""Relative paths of a file in another folder are that folder's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from orchestrator.stackfile.absolute_paths import absolute
from orchestrator.stackfile.canonical import canonicalize
from orchestrator.stackfile.load import Options, load

SERVICES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a build context": ({"build": "app"}, {"build": "/far/app"}),
    "the folder itself": ({"build": {"target": "x"}}, {"build": {"target": "x", "context": "/far"}}),
    "further contexts, of services too": (
        {"build": {"context": "..", "additional_contexts": {"a": "a", "b": "service:b", "c": "https://x/y.git"}}},
        {"build": {"context": "/", "additional_contexts": {"a": "/far/a", "b": "service:b", "c": "https://x/y.git"}}},
    ),
    "a file of variables": ({"env_file": "a.env"}, {"env_file": "/far/a.env"}),
    "files of variables": (
        {"env_file": ["a.env", {"path": "b.env", "required": False}]},
        {"env_file": ["/far/a.env", {"path": "/far/b.env", "required": False}]},
    ),
    "a file that is extended": (
        {"extends": {"file": "x.yml", "service": "a"}},
        {"extends": {"file": "/far/x.yml", "service": "a"}},
    ),
    "a service of the same file": ({"extends": "a"}, {"extends": "a"}),
    "a bind in the short form": ({"volumes": ["./a:/b:ro", "v:/c"]}, {"volumes": ["/far/a:/b:ro", "v:/c"]}),
    "a bind in the long form": (
        {"volumes": [{"type": "bind", "source": "a", "target": "/b"}, {"type": "volume", "source": "a", "target": "/c"}]},
        {"volumes": [{"type": "bind", "source": "/far/a", "target": "/b"}, {"type": "volume", "source": "a", "target": "/c"}]},
    ),
    "what is watched": (
        {"develop": {"watch": [{"path": "src", "action": "sync"}]}},
        {"develop": {"watch": [{"path": "/far/src", "action": "sync"}]}},
    ),
    "a path that is absolute, at home or of Windows": (
        {"env_file": ["/a", "~/b", "C:\\c"]},
        {"env_file": ["/a", "~/b", "C:\\c"]},
    ),
    "what has another shape than it must": ({"volumes": "./a:/b", "develop": []}, {"volumes": "./a:/b", "develop": []}),
}


@pytest.mark.parametrize(("given", "expected"), SERVICES.values(), ids=SERVICES)
def test_of_a_service(given: dict[str, Any], expected: dict[str, Any]) -> None:
    document = {"services": {"a": given}, "name": "x"}
    before = copy.deepcopy(document)
    assert absolute(document, Path("/far")) == {"services": {"a": expected}, "name": "x"}
    assert document == before, "the document that is given stays as it is"


def test_of_configs_and_secrets() -> None:
    document = {"configs": {"a": {"file": "a"}, "b": {"content": "x"}}, "secrets": {"c": {"file": "./c"}, "d": None}}
    assert absolute(document, Path("/far")) == {
        "configs": {"a": {"file": "/far/a"}, "b": {"content": "x"}},
        "secrets": {"c": {"file": "/far/c"}, "d": None},
    }


def test_a_project_in_a_linked_folder_has_the_links_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "current").symlink_to("7")
    (tmp_path / "current" / "compose.yaml").write_text(
        "services: {a: {image: i, build: src, volumes: ['./data:/data', '../current/x/../y:/y']}}\n"
    )
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setenv("PWD", str(tmp_path / "current"))
    loaded = load(Options(), {})
    assert loaded.stack.name == "current"
    shown = canonicalize(loaded)["services"]["a"]
    assert [v["source"] for v in shown["volumes"]] == [str(tmp_path / "current" / name) for name in ("data", "y")]
    assert shown["build"]["context"] == str(tmp_path / "current" / "src")
    monkeypatch.setenv("PWD", "/somewhere/else")  # a folder that the shell has left
    assert load(Options(), {}).stack.name == "7"
