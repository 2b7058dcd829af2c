"""Repositories that somebody else has made: objects with the right names and the wrong content, refs, configuration, hooks and
attributes that would run a program, and addresses that git takes for something else. Fetched, checked out and read as the
server does it; a program of theirs, or a file outside of the checkout, is a fault."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from orchestrator.errors import PystackError
from orchestrator.gitops import load
from orchestrator.gitops.git import Mirror
from orchestrator.gitops.model import Repo
from tests.fuzz import mutate
from tests.fuzz.area import HANG_S, Area, Run, told, unfit

STACK = b"services:\n  web: {image: busybox, command: [sleep, '1'], configs: [text]}\nconfigs: {text: {file: ./text}}\n"
NAMES = tuple(
    "stack.yml|compose.yaml|pystack.yml|text|a|d|..|.|.git|.GIT|git~1|.git.|.gitattributes|.gitmodules|a/b|/abs|-x|--upload-pack=x|"
    "a\\b|C:|con|\x1b[2J|\n|\udcff|é|.\u200cgit|".split("|")
) + ("x" * 255, "x" * 5000)
MODES = ("100644", "100644", "100755", "120000", "40000", "40000", "160000", "0", "100664", "777777777", "0100644", "", "x")
LINKS = (
    b"..",
    b"/etc/passwd",
    b"../../canary",
    b".git/config",
    b"stack.yml",
    b"\0",
    b"x" * 5000,
    b"/repository/../../canary",
    b"",
)
MARK = Path("/dev/shm/fuzz-git-executed")
"""What programs of theirs would make; always of the same name, since it is part of what is spoiled."""


class Made:
    """A bare repository, object by object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("objects", "refs/heads", "hooks", "info"):
            (folder / part).mkdir(parents=True)
        (folder / "HEAD").write_text("ref: refs/heads/main\n")
        (folder / "config").write_text("[core]\n\tbare = true\n\trepositoryformatversion = 0\n")

    def put(self, kind: str, data: bytes) -> str:
        whole = f"{kind} {len(data)}\0".encode() + data
        name = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
        path = self.folder / "objects" / name[:2] / name[2:]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(whole, 1))
        return name

    def tree(self, entries: list[tuple[str, str, str]]) -> str:
        rows = (
            mode.encode() + b" " + name.encode("utf-8", "surrogateescape") + b"\0" + bytes.fromhex(ident)
            for mode, name, ident in entries
        )
        return self.put("tree", b"".join(rows))

    def build(self, rng: random.Random) -> None:
        run = f"touch {MARK}"
        blobs = {
            "stack.yml": STACK,
            "text": b"hello",
            ".gitattributes": b"* filter=evil diff=evil merge=evil\n* working-tree-encoding=UTF-16\nx filter=lfs\n"[
                : rng.choice((12, 40, 70, 200))
            ],
            ".gitmodules": b'[submodule "x"]\n\tpath = x\n\turl = --upload-pack='
            + run.encode()
            + b"\n\tupdate = !"
            + run.encode()
            + b"\n",
        }
        entries = [
            ("100644", name, self.put("blob", data)) for name, data in blobs.items() if name[0] != "." or rng.random() < 0.3
        ]
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            mode, name = rng.choice(MODES), rng.choice(NAMES)
            data = rng.choice(LINKS) if mode == "120000" else mutate.some(rng, STACK)
            ident = self.put("blob", data)
            if mode == "40000" or rng.random() < 0.1:
                ident = self.tree(
                    [("100644", rng.choice(NAMES), ident), ("120000", rng.choice(NAMES), self.put("blob", rng.choice(LINKS)))]
                )
            entries.append((mode, name, rng.choice((ident, ident, ident, "0" * 40, "1" * 40))))
        if rng.random() < 0.8:
            entries.sort(key=lambda e: e[1] + ("/" if e[0] == "40000" else ""))
        top = self.tree(entries)
        if rng.random() < 0.03:
            for _ in range(40):  # a few objects, and more files than there are atoms
                top = self.tree([("40000", f"d{i}", top) for i in range(8)])
        commit = f"tree {top}\nauthor A <a@b> 1700000000 +0000\ncommitter A <a@b> 1700000000 +0000\n\nsubject\n".encode()
        if rng.random() < 0.2:
            commit = mutate.some(rng, commit)
        ident = self.put("commit", commit)
        self._refs(rng, rng.choice((ident, ident, ident, ident, ident, top, self.put("tag", commit), "0" * 40)))
        self._surroundings(rng, run)

    def _refs(self, rng: random.Random, ident: str) -> None:
        (self.folder / "refs/heads/main").write_text(f"{ident}\n")
        how = rng.random()
        if how < 0.1:
            (self.folder / "HEAD").write_bytes(mutate.some(rng, b"ref: refs/heads/main\n"))
        elif how < 0.2:
            (self.folder / "packed-refs").write_bytes(
                mutate.some(rng, f"# pack-refs with: peeled\n{ident} refs/heads/other\n".encode())
            )
        elif how < 0.25:
            (self.folder / "refs/heads/main").unlink()
            (self.folder / "refs/heads/main").symlink_to(rng.choice(("/etc/hostname", "../../HEAD", "main", "/dev/zero")))
        elif how < 0.3:
            (self.folder / "shallow").write_bytes(mutate.some(rng, f"{ident}\n".encode()))
        for path in list((self.folder / "objects").glob("??/*")) if rng.random() < 0.1 else ():
            if rng.random() < 0.3:
                path.write_bytes(mutate.some(rng, path.read_bytes()))

    def _surroundings(self, rng: random.Random, run: str) -> None:
        """Configuration and hooks that would run something."""
        if rng.random() < 0.3:
            lines = (
                f"[core]\n\tfsmonitor = {run}",
                f"[core]\n\thooksPath = {self.folder}/hooks",
                f"[core]\n\tsshCommand = {run}",
                f"[core]\n\talternateRefsCommand = {run}",
                f'[filter "evil"]\n\tsmudge = {run}\n\tprocess = {run}\n\trequired = true',
                f"[uploadpack]\n\tpackObjectsHook = {run}",
                f"[include]\n\tpath = {self.folder}/more",
                "[extensions]\n\tpartialClone = origin",
                f'[remote "origin"]\n\tpromisor = true\n\turl = ext::sh -c "{run}"',
                f"[gpg]\n\tprogram = {run}",
                "[core]\n\tworktree = /",
            )
            with (self.folder / "config").open("a") as file:
                file.write("\n".join(rng.sample(lines, 3)) + "\n")
        for name in rng.sample(
            ("pre-receive", "post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc", "post-upload-pack"), 2
        ):
            (self.folder / "hooks" / name).write_text(f"#!/bin/sh\n{run}\n")
            (self.folder / "hooks" / name).chmod(0o755)
        if rng.random() < 0.1:
            (self.folder / "objects/info").mkdir()
            (self.folder / "objects/info/alternates").write_text(
                rng.choice(("/\n", "../../..\n", f"{self.folder}/objects\n", "\0\n"))
            )


def address(rng: random.Random, repository: Path) -> tuple[str, str]:
    """(URL, branch): mostly the repository's."""
    url = str(repository) if rng.random() < 0.7 else f"file://{repository}"
    branch = rng.choice(("", "", "", "main", "main", "main", "main", "other"))
    chance = rng.random()
    if chance < 0.1:
        url = rng.choice(
            (
                f"--upload-pack=touch {MARK}",
                f"ext::sh -c touch% {MARK}",
                f"ssh://-oProxyCommand=touch {MARK}/x",
                f"-oProxyCommand=touch {MARK}:x",
                f"{repository}\n",
                f"file://{repository}/.",
                *("-u", "http://127.0.0.1:1/x", "ssh://127.0.0.1:1/x", "fd::7", "", "\0", "ftp://x/", "file:///dev/zero"),
                *rng.sample(mutate.TEXTS, 2),
            )
        )
    elif chance < 0.15:
        branch = rng.choice(("../main", "*", "main:x", "-x", "a b", "main^{tree}", *rng.sample(mutate.TEXTS, 2)))
    return url, branch


class Repositories(Area):
    name = "git"
    share = 0.0075

    def run(self, inputs: Iterable[int], run: Run) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-git-") as folder:
            asyncio.run(self._all(inputs, run, Path(folder)))

    async def _all(self, inputs: Iterable[int], run: Run, folder: Path) -> None:
        for index in inputs:
            run.begin(index)
            await self._try(index, run, folder)

    async def _try(self, index: int, run: Run, top: Path) -> None:
        rng = run.rng(index)
        refused = True
        work = top / "work"
        (top / "canary").write_text("sings")
        repository = Made(work / "theirs.git")
        repository.build(rng)
        url, branch = address(rng, repository.folder)
        mirror = Mirror(work / "ours" / "git", work / "run")
        (work / "ours").mkdir()
        if rng.random() < 0.5:  # a git that does not know what is wrong with them
            subprocess.run(["git", "init", "-q", "--bare", "--template=", mirror.folder], check=True)  # noqa: ASYNC221
            with (mirror.folder / "config").open("a") as file:
                file.write("[fetch]\n\tfsckObjects = false\n")
        goal = work / "tree" / load.TOP.lstrip("/")
        try:
            async with asyncio.timeout(HANG_S):
                commit = await mirror.fetch(Repo(name="r", url=url, branch=branch, largest=1 << 22), key=b"", token=b"")
                await mirror.checkout(commit, goal, 1 << 22)
                if index % 8 == 0:
                    await load.stacks_of(load.LoadRequest(str(work / "tree"), "r", ".", ()))
            refused = False
            if bad := unfit(f"{commit.author}{commit.subject}-"):
                run.fault(index, f"the commit {bad}: {commit}")
        except TimeoutError:
            run.fault(index, f"it was not done after {HANG_S:.0f} s: {url!r} {branch!r}", late=True)
        except PystackError as error:
            if bad := unfit(str(error)):
                run.fault(index, f"{type(error).__name__} {bad}: {str(error)[:300]!r}")
        except BaseException as error:
            run.fault(index, f"{told(error)}: {url!r} {branch!r}")
        if MARK.exists():
            run.fault(index, f"a program of the repository's was run: {url!r} {branch!r}")
            MARK.unlink()
        if set(os.listdir(top)) != {"work", "canary"} or (top / "canary").read_text() != "sings":
            run.fault(index, f"something outside of the checkout was made: {os.listdir(top)}")
        if (goal / ".git").exists() or not set(os.listdir(work)) <= {"theirs.git", "ours", "run", "tree"}:
            run.fault(index, f"the checkout has what it must not: {os.listdir(work)}")
        if left := [p.name for p in (work / "run").glob("*")]:
            run.fault(index, f"keys are left: {left}")
        shutil.rmtree(work)
        run.done(refused=refused)
