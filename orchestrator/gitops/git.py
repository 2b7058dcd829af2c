"""A local mirror of one repository, fetched by the git program: only the newest commit of a branch.

How git is run, and its bounds, is in `git_process.py`. Source: git-fetch(1), git-verify-commit(1), ssh_config(5).
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
from pathlib import Path

from orchestrator.gitops import git_process
from orchestrator.gitops.git_process import FETCH_S, QUICK_S, GitError, printable
from orchestrator.gitops.model import Commit, Repo

TIP = "refs/pystack/tip"
OPENPGP = "BEGIN PGP PUBLIC KEY BLOCK"
_URL = re.compile(
    r"(?:https?|ssh|file)://[^\s-]\S*|/[^\0]*|[A-Za-z0-9._~][\w.~-]*(?:@[A-Za-z0-9\[][\w.:\[\]-]*)?:(?!:|//)[^\s\0]+"
)
"""A URL, a path, or HOST:PATH: nothing that git takes for an option or for a program (ext::)."""
REFS, HEADS = "refs/", "refs/heads/"
_NO_BRANCH = re.compile(r"[\x00-\x20~^:?*\[\\\x7f]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^@$")
"""Source: git-check-ref-format(1)."""


def check(repo: Repo) -> None:
    """Raises GitError if git would take the URL or the branch of *repo* for something else."""
    if not _URL.fullmatch(repo.url):
        kinds = "https://…, http://…, ssh://…, file://…, HOST:PATH or a path"
        raise GitError(f"{printable(repo.url)!r} is not the address of a repository: write {kinds}")
    if repo.branch and (_NO_BRANCH.search(repo.branch) or len(repo.branch) > 255):
        raise GitError(f"{printable(repo.branch)!r} is not the name of a branch: see git-check-ref-format(1)")


class Mirror:
    """*folder* is kept between fetches. *run* is a folder on a tmpfs: keys are there while git runs."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder = folder
        self.run = run

    async def fetch(self, repo: Repo, *, key: bytes, token: bytes) -> Commit:
        """Fetch the newest commit of the branch. Raises GitError; the commit that was fetched before stays."""
        check(repo)
        await self._prepare()
        full = repo.branch.startswith(REFS)
        wanted = repo.branch if full else f"{HEADS}{repo.branch}" if repo.branch else "HEAD"
        environment = self._credentials(repo, key, token)
        try:
            await self._git(
                "fetch",
                "--quiet",
                "--depth=1",
                "--no-tags",
                "--no-recurse-submodules",
                "--no-write-fetch-head",
                "--force",
                "--",
                repo.url,
                f"+{wanted}:{TIP}",
                extra=environment,
                timeout_s=FETCH_S,
                largest=repo.largest,
            )
        finally:
            self._forget_keys()
        commit = await self.commit(TIP)
        await self._forget_others(commit.id)
        return commit

    async def branches(self, repo: Repo, *, key: bytes, token: bytes) -> dict[str, str]:
        """The branches that the remote has now, each with the hash of its newest commit; and what else it has under `refs/`,
        under its full name, as far as the repository's previews ask for it: `refs/pull/7/head`. Raises GitError."""
        check(repo)
        await self._prepare()
        more = [p for p in repo.previews if p.startswith(REFS)]
        words = ("ls-remote", "--quiet", "--", repo.url, f"{HEADS}*", *more)
        try:
            lines = await self._git(*words, extra=self._credentials(repo, key, token), timeout_s=FETCH_S)
        finally:
            self._forget_keys()
        found = (line.split("\t", 1) for line in lines.splitlines() if "\t" in line)
        listed = [(name, commit) for commit, name in found if name.startswith(REFS) and not name.startswith(HEADS + REFS)]
        named = {name.removeprefix(HEADS): commit for name, commit in listed}
        return {name: commit for name, commit in named.items() if not _NO_BRANCH.search(name) and len(name) <= 255}

    async def _prepare(self) -> None:
        """Make the mirror if there is none."""
        if not (self.folder / "HEAD").exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True, mode=0o700)
            await self._git("init", "--bare", "--quiet", "--template=", str(self.folder))

    def _forget_keys(self) -> None:
        for file in self.run.glob("*"):
            file.unlink(missing_ok=True)

    async def _forget_others(self, commit: str) -> None:
        """Delete the objects of older commits, once there are many packs: each fetch brings one."""
        packs = list((self.folder / "objects" / "pack").glob("*.pack"))
        loose = sum(1 for d in (self.folder / "objects").glob("[0-9a-f][0-9a-f]") for _ in d.iterdir())
        if len(packs) > 20 or loose > 5000:
            (self.folder / "shallow").write_text(f"{commit}\n")
            await self._git("repack", "-a", "-d", "--quiet", timeout_s=FETCH_S)
            await self._git("prune", "--expire=now", timeout_s=FETCH_S)

    async def commit(self, name: str) -> Commit:
        """The commit that *name*, a ref or a hash, stands for. Raises GitError."""
        line = await self._git("log", "-1", "--no-show-signature", "--format=%H%x00%an <%ae>%x00%cI%x00%s", name, "--")
        ident, _, rest = line.rstrip("\n").partition("\0")
        author, date, subject = (printable(text) for text in (*rest.split("\0", 2), "", "")[:3])
        return Commit(id=ident, author=author, date=date, subject=subject)

    async def verify(self, commit: Commit, signers: str) -> None:
        """Raises GitError unless one of *signers* has signed *commit*.

        *signers* is the text of an ALLOWED SIGNERS file (ssh-keygen(1)), or OpenPGP public keys in ASCII armour."""
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        file, ring = self.run / "signers", self.run / "gnupg"
        file.write_text(signers)
        ring.mkdir(mode=0o700, exist_ok=True)
        try:
            if OPENPGP in signers:
                await self._import(file, ring)
                file.write_text("")  # no SSH key may sign
            await self._git(
                "-c", f"gpg.ssh.allowedSignersFile={file}", "verify-commit", commit.id, extra={"GNUPGHOME": str(ring)}
            )
        except GitError as error:
            why = next(iter((error.reason or str(error)).splitlines()), "")
            raise GitError(f"commit {commit.short} is not signed by an allowed signer", why) from None
        finally:
            file.unlink(missing_ok=True)
            shutil.rmtree(ring, ignore_errors=True)

    async def _import(self, keys: Path, ring: Path) -> None:
        """Import the file of public *keys* into *ring*, an empty GnuPG home. Raises GitError."""
        try:
            process = await asyncio.create_subprocess_exec(
                "gpg",
                "--homedir",
                str(ring),
                "--batch",
                "--quiet",
                "--import",
                str(keys),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError:
            raise GitError(
                "gpg is not installed on the server, which needs it for OpenPGP signatures: `apt-get install gnupg`"
            ) from None
        async with asyncio.timeout(QUICK_S):
            _, err = await process.communicate()
        if process.returncode:
            raise GitError("gpg", f"the keys of --signed-by cannot be read: {err.decode(errors='replace').strip()}")

    async def checkout(self, commit: Commit, goal: Path, largest: int) -> None:
        """Write the files of *commit* below *goal*. *largest* limits their size in bytes.

        Raises GitError for submodules, Git LFS and trees that are too large, with the path."""
        total = 0
        listing = await self._git("ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit.id)
        for entry in filter(None, listing.split("\0")):
            info, _, path = entry.partition("\t")
            mode, _, _, size = info.split()
            if mode == "160000":
                raise GitError(
                    f"{printable(path)} is a submodule: submodules are not supported: put its files into the repository"
                )
            total += int(size) if size.isdecimal() else 0
        if total > largest:
            raise GitError(
                f"the files of commit {commit.short} have {total >> 20} MiB, more than the {largest >> 20} MiB "
                "allowed (--max-size)"
            )
        if path := await self._large_files(commit):
            raise GitError(f"{printable(path)}: Git LFS is not supported: put the file itself into the repository")
        shutil.rmtree(goal, ignore_errors=True)
        goal.mkdir(parents=True, mode=0o755)
        index = {"GIT_INDEX_FILE": str(self.folder / "index.pystack"), "GIT_WORK_TREE": str(goal)}
        try:
            await self._git("read-tree", commit.id, extra=index, timeout_s=FETCH_S)
            await self._git("checkout-index", "--all", "--force", extra=index, timeout_s=FETCH_S)
        finally:
            (self.folder / "index.pystack").unlink(missing_ok=True)

    async def _large_files(self, commit: Commit) -> str:
        """The path of a .gitattributes that uses Git LFS, "" if none does."""
        try:
            paths = await self._git("grep", "-l", "-E", "filter=lfs", commit.id, "--", ".gitattributes", "*/.gitattributes")
        except GitError:
            return ""
        return paths.splitlines()[0].partition(":")[2] if paths else ""

    def _credentials(self, repo: Repo, key: bytes, token: bytes) -> dict[str, str]:
        """The environment that lets git and ssh log in. Key files are in *run*; the caller deletes them when git has ended."""
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "ConnectTimeout=15",
            "ServerAliveInterval=15",
            f"UserKnownHostsFile={self.run / 'known_hosts'}",
            "GlobalKnownHostsFile=none",
        ]
        ssh = ["ssh", "-F", "none", *(word for option in options for word in ("-o", option))]
        (self.run / "known_hosts").write_text(repo.known_hosts)
        if key:
            descriptor = os.open(self.run / "key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key.rstrip() + b"\n")
            ssh += ["-o", "IdentitiesOnly=yes", "-i", str(self.run / "key")]
        out = {"GIT_SSH_COMMAND": " ".join(ssh)}
        if token:
            basic = base64.b64encode(b"x-access-token:" + token.strip()).decode()
            # git sends an extra header to the target of a redirect too
            out |= {
                "GIT_CONFIG_COUNT": "2",
                "GIT_CONFIG_KEY_0": "http.extraHeader",
                "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
                "GIT_CONFIG_KEY_1": "http.followRedirects",
                "GIT_CONFIG_VALUE_1": "false",
            }
        return out

    async def _git(self, *words: str, extra: dict[str, str] | None = None, timeout_s: float = QUICK_S, largest: int = 0) -> str:
        return await git_process.run(self.folder, *words, extra=extra, timeout_s=timeout_s, largest=largest)
