"""Which of the user's credentials go out with a command: those for the registries in question, and no others."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.registry_login import HEADER, headers_for, headers_for_build
from orchestrator.errors import PystackError

HUB = "https://index.docker.io/v1/"


def word(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


CONFIG = {
    "auths": {
        HUB: {"auth": word("me", "h")},
        "one.example": {"auth": word("me", "1:1")},
        "https://two.example:5000/v2/": {"auth": word("me", "2")},
        "three.example": {"identitytoken": "t"},
    }
}
ONE, TWO = {"username": "me", "password": "1:1"}, {"username": "me", "password": "2"}
AT_HUB, THREE = {"username": "me", "password": "h"}, {"identitytoken": "t"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def read(headers: dict[str, str]) -> Any:
    return json.loads(base64.urlsafe_b64decode(headers[HEADER])) if headers else {}


@pytest.mark.parametrize(
    ("images", "sent"),
    [
        ([], {}),
        (["nginx"], {HUB: AT_HUB}),
        (["docker.io/some/thing:1", "one.example/a"], {HUB: AT_HUB, "one.example": ONE}),
        (["two.example:5000/a@sha256:" + "0" * 64], {"two.example:5000": TWO}),
        (["three.example/a/b:1", "other.example/a"], {"three.example": THREE}),
        (["", "no image at all", "sha256:" + "0" * 64], {}),
    ],
)
def test_only_those_of_the_registries_in_question_are_sent(folder: Path, images: list[str], sent: Any) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert read(headers_for(images)) == sent


def test_a_build_gets_all_that_are_named(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert read(headers_for_build()) == {HUB: AT_HUB, "one.example": ONE, "two.example:5000": TWO, "three.example": THREE}


@pytest.mark.parametrize("text", [None, "{}", '{"psFormat": "table"}', '{"auths": {}}'])
def test_who_is_logged_in_nowhere_sends_nothing(folder: Path, text: str | None) -> None:
    if text is not None:
        (folder / "config.json").write_text(text)
    assert headers_for(["one.example/a"]) == headers_for_build() == {}


@pytest.mark.parametrize("text", ['{"auths": ', '{"auths": {"one.example": {"auth": "%%"}}}', '{"auths": [1]}'])
def test_a_file_that_is_wrong_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(PystackError, match=r"config\.json"):
        headers_for(["one.example/a"])


def test_who_has_no_file_loads_nothing_for_it(folder: Path) -> None:
    script = "import sys; from orchestrator.cli.registry_login import headers_for as h; h(['a']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert not {"asyncio", "aiohttp", "agent.images"} & set(done.stdout.split())
