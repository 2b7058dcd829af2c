"""Programs that an engine needs are looked for where they are, and told all at once where they are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent import programs


def test_an_ordinary_users_path_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/opt/mine:/usr/bin:")
    programs.complete_path()
    assert os.environ["PATH"].split(":") == [
        "/opt/mine",
        "/usr/bin",
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/sbin",
        "/bin",
    ]


def test_one_runtime_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("crun", "conmon", "nft"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs.missing() == []


def test_all_that_is_missing_is_told_at_the_start(tmp_path: Path) -> None:
    bare = "import agent.programs as p; p.FOLDERS = p.ELSEWHERE = (); from agent.daemon import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", bare],
        env={"PATH": str(tmp_path), "PYSTACK_ROOT": str(tmp_path / "root"), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    for program, package in (("crun or runc", "runc"), ("conmon", "conmon"), ("nft", "nftables")):
        assert f"{program} is not installed" in done.stderr
        assert f"`apt-get install {package}`" in done.stderr
    assert "Traceback" not in done.stderr
