"""Repositories and addresses that mean harm, for the git that the server runs. What the fuzzer found stands here by name."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from orchestrator.gitops import git, model
from orchestrator.gitops.git import Mirror
from orchestrator.gitops.git_process import GitError
from orchestrator.gitops.model import Repo
from tests.fuzz.git import Made

LARGEST = 1 << 22


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    (tmp_path / "ours").mkdir()
    return Mirror(tmp_path / "ours" / "git", tmp_path / "run")


async def fetched(mirror: Mirror, url: object, branch: str = "", token: bytes = b"") -> model.Commit:
    return await mirror.fetch(Repo(name="r", url=str(url), branch=branch, largest=LARGEST), key=b"", token=token)


def made(folder: Path, entries: list[tuple[str, str, str]] | str, extra: bytes = b"") -> Made:
    """A repository of one commit with these entries, or with that tree."""
    one = Made(folder)
    tree = entries if isinstance(entries, str) else one.tree(entries)
    head = f"tree {tree}\nauthor A <a@b> 1700000000 +0000\ncommitter A <a@b> 1700000000 +0000\n\n".encode()
    (folder / "refs/heads/main").write_text(one.put("commit", head + (extra or b"subject\n")) + "\n")
    return one


ADDRESSES = (
    "--upload-pack=touch {mark}",
    "-u",
    "ext::sh -c touch% {mark}",
    "ssh://-oProxyCommand=touch {mark}/x",
    "-oProxyCommand=x:y",
    "fd::7",
    "",
    "\0",
    "https://",
    "ftp://h/x",
    "a b",
    "/x\0y",
    "file://\n",
)


@pytest.mark.parametrize("address", ADDRESSES)
async def test_what_is_no_address_never_reaches_git(mirror: Mirror, tmp_path: Path, address: str) -> None:
    mark = tmp_path / "executed"
    with pytest.raises(GitError, match="is not the address of a repository"):
        await fetched(mirror, address.format(mark=mark))
    assert not mark.exists()
    assert not mirror.folder.exists()


@pytest.mark.parametrize(
    "address",
    [
        "https://h/x.git",
        "http://h:1/x",
        "ssh://git@h:22/x",
        "git@h:x/y.git",
        "h:x",
        "file:///x/y",
        "/x/y z",
        "ssh://git@[::1]/x",
    ],
)
def test_addresses(address: str) -> None:
    git.check(Repo(name="r", url=address))


NO_BRANCHES = ("-x", "a b", "a:b", "*", "a..b", "@{1}", "a^", "x.lock", "a\nb", "a\\b", "/a", "a/", ".a", "x" * 300)


@pytest.mark.parametrize("branch", NO_BRANCHES)
def test_what_is_no_branch(branch: str) -> None:
    with pytest.raises(GitError, match="is not the name of a branch"):
        git.check(Repo(name="r", url="/x", branch=branch))


@pytest.mark.parametrize("branch", ["main", "feature/x-1", "v1.2", "ü"])
def test_branches(branch: str) -> None:
    git.check(Repo(name="r", url="/x", branch=branch))


@pytest.mark.parametrize("leaves", [True, False], ids=["files", "no files at all"])
async def test_a_commit_of_billions_of_files_is_refused(mirror: Mirror, tmp_path: Path, leaves: bool) -> None:
    """Trees that hold one tree ten times over, thirteen deep: some kilobytes, and git would list them for weeks."""
    theirs = Made(tmp_path / "theirs.git")
    top = theirs.tree([("100644", "f", theirs.put("blob", b"x"))] if leaves else [])
    for _ in range(13):
        top = theirs.tree([("40000", f"d{i}", top) for i in range(10)])
    made(tmp_path / "again.git", top)
    for path in (tmp_path / "theirs.git" / "objects").glob("??/*"):
        goal = tmp_path / "again.git" / "objects" / path.parent.name / path.name
        goal.parent.mkdir(exist_ok=True)
        path.rename(goal)
    commit = await fetched(mirror, tmp_path / "again.git")
    with pytest.raises(GitError, match="more than 100000 files and folders"):
        await mirror.checkout(commit, tmp_path / "goal", LARGEST)
    assert not (tmp_path / "goal").exists()


NAMES = {
    "the repository's own folder": ([("40000", ".git")], "'.git'"),
    "the same on other file systems": ([("40000", ".GIT")], "hasDotgit"),
    "a way out": ([("40000", "..")], "'..'"),
    "a path": ([("100644", "a/b")], "full pathnames"),
    "nothing": ([("100644", "")], ""),
    "one name twice": ([("120000", "d"), ("40000", "d")], ""),
}


@pytest.mark.parametrize(("entries", "said"), NAMES.values(), ids=NAMES)
async def test_names_that_no_tree_may_have(mirror: Mirror, tmp_path: Path, entries: list[tuple[str, str]], said: str) -> None:
    theirs = Made(tmp_path / "theirs.git")
    blob = theirs.put("blob", b"../../out")
    tree = theirs.tree([("100644", "f", blob)])
    made(tmp_path / "all.git", theirs.tree([(mode, name, tree if mode == "40000" else blob) for mode, name in entries]))
    for path in (tmp_path / "theirs.git" / "objects").glob("??/*"):
        goal = tmp_path / "all.git" / "objects" / path.parent.name / path.name
        goal.parent.mkdir(exist_ok=True)
        path.rename(goal)
    with pytest.raises(GitError) as caught:
        await mirror.checkout(await fetched(mirror, tmp_path / "all.git"), tmp_path / "goal", LARGEST)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000


async def test_a_subject_does_not_move_the_cursor(mirror: Mirror, tmp_path: Path) -> None:
    theirs = Made(tmp_path / "theirs.git")
    blob = theirs.put("blob", b"x")
    one = made(tmp_path / "all.git", [], b"\x1b[2J" + b"long " * 1000)
    assert blob
    assert one.folder.exists()
    commit = await fetched(mirror, tmp_path / "all.git")
    assert commit.subject.isprintable()
    assert len(commit.subject) <= 200


async def test_hooks_of_a_template_are_none_of_ours(mirror: Mirror, tmp_path: Path) -> None:
    made(tmp_path / "theirs.git", [])
    await fetched(mirror, tmp_path / "theirs.git")
    assert not (mirror.folder / "hooks").exists()
    command = ["git", "config", "--file", str(tmp_path / "ours" / "gitconfig"), "core.hooksPath"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"/dev/null\n"  # noqa: ASYNC221


class _Server(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[tuple[str, str | None]]] = []
    onward = ""

    def do_GET(self) -> None:
        type(self).asked.append((self.path, self.headers["Authorization"]))
        self.send_response(302 if self.onward and "elsewhere" not in self.path else 404)
        if self.onward:
            self.send_header("Location", self.onward)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    _Server.asked = []
    made = http.server.HTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{made.server_port}"
    _Server.onward = f"{address}/elsewhere/info/refs?service=git-upload-pack"
    yield address
    made.shutdown()
    thread.join()
    made.server_close()


async def test_a_token_goes_nowhere_else(mirror: Mirror, server: str) -> None:
    """git sends an extra header wherever it is redirected to."""
    with pytest.raises(GitError, match="git fetch"):
        await fetched(mirror, f"{server}/mine", token=b"secret")
    assert [path.partition("?")[0] for path, _ in _Server.asked] == ["/mine/info/refs"]
    assert _Server.asked[0][1]


async def test_without_a_token_a_repository_may_have_moved(mirror: Mirror, server: str) -> None:
    with pytest.raises(GitError):
        await fetched(mirror, f"{server}/mine")
    assert any("elsewhere" in path for path, _ in _Server.asked)
