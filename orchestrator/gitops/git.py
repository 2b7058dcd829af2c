"""One repository, fetched by the git program: only its newest commit, within bounds of time and size.

git reads no configuration but ours, speaks only https, http, ssh and file, and asks nobody anything. Source: git(1), GIT_*
environment variables; git-config(1), safe.directory; ssh_config(5).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import resource
import shutil
import signal
from pathlib import Path

from orchestrator.errors import PystackError
from orchestrator.gitops.model import Commit, Repo

FETCH_S = 300.0
QUICK_S = 60.0
MEMORY = 4 << 30
"""Address space of a git: an object can claim any size."""
ENTRIES, LISTING = 100_000, 64 << 20
"""Files and folders of a commit, and bytes of their list: a few trees that hold each other many times over are billions."""
TIP = "refs/pystack/tip"
OPENPGP = "BEGIN PGP PUBLIC KEY BLOCK"
CONFIG = """[safe]
\tdirectory = *
[core]
\thooksPath = /dev/null
\tattributesFile = /dev/null
\tfsmonitor = false
\tbigFileThreshold = 1m
\tpackedGitWindowSize = 16m
\tpackedGitLimit = 64m
\tprotectHFS = true
\tprotectNTFS = true
[pack]
\tthreads = 1
[gc]
\tauto = 0
[submodule]
\trecurse = false
[http]
\tlowSpeedLimit = 256
\tlowSpeedTime = 60
[fetch]
\tfsckObjects = true
[fetch "fsck"]
\tzeroPaddedFilemode = ignore
\tzeroPaddedDate = ignore
\tbadTimezone = ignore
\tmissingEmail = ignore
\tmissingSpaceBeforeEmail = ignore
\tmissingSpaceBeforeDate = ignore
\tgitmodulesParse = ignore
\tgitmodulesUrl = ignore
[gpg]
\tformat = ssh
"""


TELLING = re.compile(r"^(fatal|error|ssh|remote): |^Host key|denied|failed", re.IGNORECASE)
"""Lines of git and ssh that say what is wrong, among those that are long about it."""


_URL = re.compile(
    r"(?:https?|ssh|file)://[^\s-]\S*|/[^\0]*|[A-Za-z0-9._~][\w.~-]*(?:@[A-Za-z0-9\[][\w.:\[\]-]*)?:(?!:|//)[^\s\0]+"
)
"""What git is given: a URL, a path, or HOST:PATH; none that it takes for an option or for a program (ext::)."""
_NO_BRANCH = re.compile(r"[\x00-\x20~^:?*\[\\\x7f]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^@$")
"""Source: git-check-ref-format(1)."""


class GitError(PystackError):
    """git says no: what, and in its words why."""


def check(repo: Repo) -> None:
    """Raises GitError for what git would take for something else than an address and a branch."""
    if not _URL.fullmatch(repo.url):
        kinds = "https://…, http://…, ssh://…, file://…, HOST:PATH or a path"
        raise GitError(f"{_plain(repo.url)!r} is no address of a repository: {kinds}")
    if repo.branch and (_NO_BRANCH.search(repo.branch) or len(repo.branch) > 255):
        raise GitError(f"{_plain(repo.branch)!r} is no name of a branch")


def _plain(text: str) -> str:
    """*text* of a repository's, for a terminal: short, and nothing that one obeys."""
    text = text if len(text) <= 200 else f"{text[:199]}…"
    return "".join(c if c.isprintable() else " " for c in text)


class Mirror:
    """*folder* is kept between fetches, *run* is on no disk: keys lie there while git runs."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder = folder
        self.run = run

    async def fetch(self, repo: Repo, *, key: bytes, token: bytes) -> Commit:
        """The newest commit of the branch. Raises GitError; what was there before is there still."""
        check(repo)
        if not (self.folder / "HEAD").exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True, mode=0o700)
            await self._git("init", "--bare", "--quiet", "--template=", str(self.folder))
        wanted = f"refs/heads/{repo.branch}" if repo.branch else "HEAD"
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
                within_s=FETCH_S,
                largest=repo.largest,
            )
        finally:
            for file in self.run.glob("*"):
                file.unlink(missing_ok=True)
        commit = await self.commit(TIP)
        await self._forget_others(commit.id)
        return commit

    async def _forget_others(self, commit: str) -> None:
        """Each fetch brings a pack; what only older commits need is dropped once in a while."""
        packs = list((self.folder / "objects" / "pack").glob("*.pack"))
        loose = sum(1 for d in (self.folder / "objects").glob("[0-9a-f][0-9a-f]") for _ in d.iterdir())
        if len(packs) > 20 or loose > 5000:
            (self.folder / "shallow").write_text(f"{commit}\n")
            await self._git("repack", "-a", "-d", "--quiet", within_s=FETCH_S)
            await self._git("prune", "--expire=now", within_s=FETCH_S)

    async def commit(self, name: str) -> Commit:
        said = await self._git("log", "-1", "--no-show-signature", "--format=%H%x00%an <%ae>%x00%cI%x00%s", name, "--")
        ident, _, rest = said.rstrip("\n").partition("\0")
        author, date, subject = (_plain(text) for text in (*rest.split("\0", 2), "", "")[:3])
        return Commit(id=ident, author=author, date=date, subject=subject)

    async def verify(self, commit: Commit, signers: str) -> None:
        """Raises GitError where *commit* bears no signature of one of *signers*: an ALLOWED SIGNERS file (ssh-keygen(1)), or
        OpenPGP public keys in ASCII armour."""
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        file, ring = self.run / "signers", self.run / "gnupg"
        file.write_text(signers)
        ring.mkdir(mode=0o700, exist_ok=True)
        try:
            if OPENPGP in signers:
                await self._import(file, ring)
                file.write_text("")  # none of them signs by SSH
            await self._git(
                "-c", f"gpg.ssh.allowedSignersFile={file}", "verify-commit", commit.id, extra={"GNUPGHOME": str(ring)}
            )
        except GitError as error:
            why = (str(error).partition(": ")[2].splitlines() or ["no signature"])[0]
            raise GitError(f"commit {commit.short} is not signed by anybody who may: {why}") from None
        finally:
            file.unlink(missing_ok=True)
            shutil.rmtree(ring, ignore_errors=True)

    async def _import(self, keys: Path, ring: Path) -> None:
        """Let *ring*, an empty folder, know the public *keys* and no others."""
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
            raise GitError("gpg: there is no gpg on the server to verify OpenPGP signatures with: install gnupg") from None
        async with asyncio.timeout(QUICK_S):
            _, err = await process.communicate()
        if process.returncode:
            raise GitError(f"gpg: the keys of --signed-by cannot be read: {err.decode(errors='replace').strip()}")

    async def checkout(self, commit: Commit, goal: Path, largest: int) -> None:
        """The files of *commit* below *goal*. Raises GitError for what a tree must not have, with the path."""
        total = 0
        listing = await self._git("ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit.id)
        for entry in filter(None, listing.split("\0")):
            info, _, path = entry.partition("\t")
            mode, _, _, size = info.split()
            if mode == "160000":
                raise GitError(f"{_plain(path)} is a submodule: submodules are not followed; put its files into the repository")
            total += int(size) if size.isdigit() else 0
        if total > largest:
            raise GitError(
                f"the files of commit {commit.short} have {total >> 20} MiB, more than the {largest >> 20} MiB "
                "allowed (--max-size)"
            )
        if path := await self._large_files(commit):
            raise GitError(f"{_plain(path)}: Git LFS files are not followed; put the file itself into the repository")
        shutil.rmtree(goal, ignore_errors=True)
        goal.mkdir(parents=True, mode=0o755)
        index = {"GIT_INDEX_FILE": str(self.folder / "index.pystack"), "GIT_WORK_TREE": str(goal)}
        try:
            await self._git("read-tree", commit.id, extra=index, within_s=FETCH_S)
            await self._git("checkout-index", "--all", "--force", extra=index, within_s=FETCH_S)
        finally:
            (self.folder / "index.pystack").unlink(missing_ok=True)

    async def _large_files(self, commit: Commit) -> str:
        """A .gitattributes that asks for LFS, "" where there is none."""
        try:
            said = await self._git("grep", "-l", "-E", "filter=lfs", commit.id, "--", ".gitattributes", "*/.gitattributes")
        except GitError:
            return ""
        return said.splitlines()[0].partition(":")[2] if said else ""

    def _credentials(self, repo: Repo, key: bytes, token: bytes) -> dict[str, str]:
        """What git and ssh find in their environment; files are on no disk and go when git ends."""
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        ssh = [
            "ssh",
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "ConnectTimeout=15",
            "-o",
            "ServerAliveInterval=15",
            "-o",
            f"UserKnownHostsFile={self.run / 'known_hosts'}",
            "-o",
            "GlobalKnownHostsFile=none",
        ]
        (self.run / "known_hosts").write_text(repo.known_hosts)
        if key:
            descriptor = os.open(self.run / "key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key.rstrip() + b"\n")
            ssh += ["-o", "IdentitiesOnly=yes", "-i", str(self.run / "key")]
        out = {"GIT_SSH_COMMAND": " ".join(ssh)}
        if token:
            basic = base64.b64encode(b"x-access-token:" + token.strip()).decode()
            # git sends an extra header wherever it is redirected to
            out |= {
                "GIT_CONFIG_COUNT": "2",
                "GIT_CONFIG_KEY_0": "http.extraHeader",
                "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
                "GIT_CONFIG_KEY_1": "http.followRedirects",
                "GIT_CONFIG_VALUE_1": "false",
            }
        return out

    async def _git(self, *words: str, extra: dict[str, str] | None = None, within_s: float = QUICK_S, largest: int = 0) -> str:
        """What git says on its standard output. Raises GitError."""
        config = self.folder.parent / "gitconfig"
        if not config.exists() or config.read_text() != CONFIG:
            config.write_text(CONFIG)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(config),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "https:http:ssh:file",
            "GIT_DIR": str(self.folder),
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            **(extra or {}),
        }

        def limits() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            if largest:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

        try:
            process = await asyncio.create_subprocess_exec(
                "git",
                *words,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                preexec_fn=limits,
                cwd=environment.get("GIT_WORK_TREE", "/"),
            )
        except FileNotFoundError:
            raise GitError("there is no git on the server: `apt-get install git`") from None
        try:
            async with asyncio.timeout(within_s):
                out, err = await _said(process)
        except (TimeoutError, asyncio.CancelledError, _TooMuchError) as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await _drained(process)
            if isinstance(error, asyncio.CancelledError):
                raise
            if isinstance(error, _TooMuchError):
                most = f"{ENTRIES} files and folders, or {LISTING >> 20} MiB of their names"
                raise GitError(f"the commit has more than {most}") from None
            raise GitError(f"git {words[0]}: it was not done after {within_s:.0f} s") from None
        if process.returncode:
            said = [line for line in err.decode(errors="replace").splitlines() if line.strip()]
            grew = any("File size limit" in s or "signal 25" in s or "File too large" in s for s in said)
            if largest and (process.returncode == -signal.SIGXFSZ or grew):
                raise GitError(f"the repository is larger than {largest >> 20} MiB (--max-size)")
            told = [s for s in said if TELLING.search(s)] or said[-3:]
            first = "; ".join(dict.fromkeys(_plain(s.removeprefix("fatal: ").removeprefix("error: ")) for s in told[:3]))
            raise GitError(f"git {words[0] if words[0] != '-c' else words[2]}: {first or f'exit status {process.returncode}'}")
        return out.decode(errors="replace")


class _TooMuchError(Exception):
    """More than LISTING, or than ENTRIES files, on standard output."""


async def _drained(process: asyncio.subprocess.Process) -> None:
    """Returns when it has ended. asyncio does not see the end of one whose output nobody reads."""
    for stream in (process.stdout, process.stderr):
        while stream and await stream.read(1 << 16):
            pass
    await process.wait()


async def _said(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    """All of both outputs, of the second the end. Raises _TooMuchError."""
    assert process.stdout and process.stderr

    async def all_of(stream: asyncio.StreamReader, most: int, *, cut: bool) -> bytes:
        found, files = bytearray(), 0
        while data := await stream.read(1 << 16):
            found += data
            files += data.count(0)
            if len(found) > most or files > ENTRIES:
                if not cut:
                    raise _TooMuchError
                del found[:-most]
        return bytes(found)

    out, err = await asyncio.gather(all_of(process.stdout, LISTING, cut=False), all_of(process.stderr, 1 << 16, cut=True))
    await process.wait()
    return out, err
