"""Commits of real repositories, written to a folder; and who the history names."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from orchestrator.cli.git_command import check_out, git
from orchestrator.cli.git_source import checked_out
from orchestrator.cli.options import user_name
from orchestrator.errors import PystackError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "shop"
    made.mkdir()
    git(made, "init", "-q", "-b", "main")
    (made / "deep").mkdir()
    (made / "deep" / "compose.yml").write_text("services: {}\n")
    git(made, "add", "-A")
    git(made, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "one")
    return made


def test_a_commit_is_written_and_the_working_copy_and_its_index_stay(repository: Path, tmp_path: Path) -> None:
    (repository / "deep" / "compose.yml").write_text("changed")
    (repository / "staged").write_text("")
    git(repository, "add", "staged")
    before = git(repository, "status", "--porcelain")
    out = tmp_path / "out" / "tree"
    out.mkdir(parents=True)
    check_out(repository / ".git", "HEAD", out)
    assert (out / "deep" / "compose.yml").read_text() == "services: {}\n"
    assert git(repository, "status", "--porcelain") == before


def test_the_same_folder_of_the_commit_is_worked_in(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "deep")
    with checked_out("main") as (tree, top):
        assert Path.cwd() == tree / "deep"
        assert (top, tree.name) == (repository.resolve(), "shop")
    assert Path.cwd() == repository / "deep"


def test_a_commit_that_is_not_there_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    with pytest.raises(PystackError, match="there is no commit v9"), checked_out("v9"):
        pass
    with pytest.raises(PystackError, match="git rev-parse: not a git repository"):
        git(Path("/"), "rev-parse", "--show-toplevel")


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert user_name() == str(os.getuid())
