"""Where COPY, ADD and mounts take files from: what a client sent, what lies at a URL, a repository, layers of a stage or an
image.

Each is a folder on this host that nobody else writes to, and a list of what is in it. Source: docker-build(1), "Build context";
Dockerfile reference, ADD.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import hashlib
import json
import os
import posixpath
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from agent import files
from agent.build.ignore import Rules, read
from agent.build.selection import Entry, Listing, is_pattern, narrowed
from agent.contract import git_program
from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError, ImageError, of_worker
from agent.images.transport import HttpClient, UnavailableError, url_of
from agent.settings import ImageLimits
from agent.trees import process

GIT_S = 600.0
IGNORE_BYTES = 1 << 20
_HOST_PATH = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.\[\]:_-]+:(?!//)\S+")
_REF = re.compile(r"[A-Za-z0-9_][\w./+@-]{0,250}\Z")
_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "gc.auto=0",
    "pack.threads=1",
    "http.lowSpeedLimit=256",
    "http.lowSpeedTime=60",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "advice.detachedHead=false",
)


class Origin(msgspec.Struct, kw_only=True):
    """The folder *root*, with *listing*, its entries as far as they were read. *owners*: the owners of files matter and are
    kept. Paths that *ignored* matches are left out."""

    root: Path
    listing: Listing
    owners: bool = False
    ignored: Rules | None = None


def listing_of(reply: process.Reply) -> Listing:
    """The listing that a worker replied."""
    return Listing({path: Entry(*fields) for path, fields in reply["entries"].items()})


async def unpacked(body: AsyncIterator[bytes], folder: Path, limits: ImageLimits, bounds: str) -> Listing:
    """The tar *body*, compressed or not, as files below the empty *folder*. Raises BadRequestError."""
    folder.mkdir(mode=0o755)
    return await updated(body, folder, limits, bounds)


async def updated(
    body: AsyncIterator[bytes], folder: Path, limits: ImageLimits, bounds: str, gone: Path | None = None
) -> Listing:
    """The same onto what *folder* holds, without the paths that the file *gone* lists. Raises BadRequestError."""
    words = (str(folder), bounds, *([str(gone)] if gone else []))
    reply = await process.fed("context", words, body, stall_s=limits.stall_s)
    if "error" in reply:
        raise of_worker(reply, BadRequestError, "the build context cannot be unpacked: ")
    return listing_of(reply)


async def listed(root: Path, sources: Sequence[str], limits: ImageLimits, bounds: str) -> Listing:
    """What of the tree *root* COPY can mean by *sources*. Raises AgentError."""
    wanted = [[narrowed(source), source.count("/") + 1 if is_pattern(source) else 0] for source in sources]

    async def request() -> AsyncIterator[bytes]:
        yield json.dumps(wanted).encode()

    reply = await process.fed("listing", (str(root), bounds), request(), stall_s=limits.stall_s)
    if "error" in reply:
        raise of_worker(reply, AgentError)
    return listing_of(reply)


def ignore_rules(root: Path, dockerfile: str, *, common: bool = True) -> Rules | None:
    """Those of `<Dockerfile>.dockerignore`, or, where these are *common*, of `.dockerignore`. Raises BadRequestError."""
    for name in (f"{dockerfile}.dockerignore", *([".dockerignore"] if common else [])):
        with contextlib.suppress(OSError):
            if files.resolve_in_root(root, name).is_file():
                return rules_of(files.read_in_root(root, name, IGNORE_BYTES), name)
    return None


def rules_of(text: str, name: str) -> Rules | None:
    """Those of an ignore file that is called *name*. Raises BadRequestError."""
    try:
        return Rules(read(text)) or None
    except BadRequestError as error:
        raise BadRequestError(f"{name}: {error}") from None


# --- what lies elsewhere -------------------------------------------------------------------------------------------


class Repository(msgspec.Struct, frozen=True):
    """*ref* is a branch, a tag or a commit, "" the newest of the default branch; *folder* a part of it."""

    url: str
    ref: str = ""
    folder: str = ""
    keep_git: bool = False
    submodules: bool = True


def is_url(text: str) -> bool:
    """Whether *text* is an HTTP address."""
    return text.startswith(("http://", "https://"))


def repository(text: str, *, keep_git: bool = False) -> Repository | None:
    """The repository that *text* names; None if it is none. Raises BadRequestError for one that is not to be gone to."""
    address, _, fragment = text.partition("#")
    ref, _, folder = fragment.partition(":")
    submodules = True
    if address.startswith("github.com/"):
        address = f"https://{address}"
        if not address.endswith(".git"):
            address += ".git"
    try:
        parts = urlsplit(address)
    except ValueError:
        raise BadRequestError(f"{quoted(text)!r} is not an address") from None
    if parts.scheme in ("http", "https"):
        if not parts.path.endswith((".git", ".git/")):
            return None
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if unknown := query.keys() - {"ref", "branch", "tag", "commit", "subdir", "submodules", "keep-git-dir"}:
            raise BadRequestError(f"{quoted(text)}: unexpected query {quoted(min(unknown))!r}")
        ref = ref or query.get("commit") or query.get("tag") or query.get("branch") or query.get("ref", "")
        folder = folder or query.get("subdir", "")
        keep_git = keep_git or query.get("keep-git-dir", "") in ("1", "true")
        submodules = query.get("submodules", "") not in ("0", "false")
        address = parts._replace(query="").geturl()
    elif not (parts.scheme in ("git", "ssh") and parts.netloc) and not _HOST_PATH.fullmatch(address):
        return None
    if address.startswith("-") or any(c.isspace() or not c.isprintable() for c in address):
        raise BadRequestError(f"{quoted(text)!r} is not an address of a repository")
    if ref and (not _REF.match(ref) or ".." in ref or ref.endswith(("/", ".lock"))):
        raise BadRequestError(f"{quoted(ref)!r} is not a branch, tag or commit")
    if ".." in folder.split("/"):
        raise BadRequestError(f"{quoted(folder)!r} leads out of the repository")
    return Repository(address, ref, folder.strip("/"), keep_git, submodules)


async def cloned(repo: Repository, folder: Path, limits: ImageLimits, *, commit: str = "") -> Path:
    """The files of *repo* and its submodules, below *folder*; where they are. With *commit*, the beginning of its name, nothing
    else is taken. Raises AgentError."""
    folder.mkdir(mode=0o755)
    await _git(folder, "init", "--quiet", "--template=", within_s=60.0)
    await _git(
        folder,
        "fetch",
        "--quiet",
        "--depth=1",
        "--no-tags",
        "--no-recurse-submodules",
        "--",
        repo.url,
        repo.ref or "HEAD",
        within_s=GIT_S,
        largest=limits.bytes,
    )
    await _git(folder, "checkout", "--quiet", "--detach", "FETCH_HEAD", within_s=GIT_S, largest=limits.bytes)
    found = (await _git(folder, "rev-parse", "HEAD", within_s=60.0)).strip()
    if commit and not (re.fullmatch(r"[0-9a-f]{7,64}", commit) and found.startswith(commit)):
        raise BadRequestError(f"commit mismatch: {quoted(commit)} is wanted of {quoted(repo.url)}, which has {found}")
    if repo.submodules and (folder / ".gitmodules").is_file():
        await _git(folder, "config", "remote.origin.url", repo.url, within_s=60.0)  # what relative addresses start from
        words = ("submodule", "update", "--quiet", "--init", "--recursive", "--checkout", "--depth=1")
        await _git(folder, *words, within_s=GIT_S, largest=limits.bytes)
    if not repo.keep_git:
        await asyncio.to_thread(_without_git, folder)
    if not repo.folder:
        return folder
    try:
        part = files.resolve_in_root(folder, repo.folder)
    except OSError:
        raise BadRequestError(f"{quoted(repo.url)} has no folder {quoted(repo.folder)}") from None
    if not part.is_dir():
        raise BadRequestError(f"{quoted(repo.folder)} of {quoted(repo.url)} is not a folder")
    return part


def _without_git(folder: Path) -> None:
    """Take away what git keeps of a repository and of its submodules: no commit has a file of that name."""
    for path, _, names in os.walk(folder):
        if ".git" in names and path != str(folder):
            Path(path, ".git").unlink()
    files.remove_tree(folder / ".git")


async def _git(folder: Path, *words: str, within_s: float, largest: int = 0) -> str:
    """The output of a git command in *folder*, for at most *within_s*; *largest* bounds each file that it writes, in bytes.
    Raises AgentError."""
    settings = tuple(word for one in _CONFIG for word in ("-c", one))
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    variables = {
        **git_program.environment("https:http:ssh:git"),
        "GIT_SSH_COMMAND": "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=15",
        **{name: os.environ[name] for name in proxies if name in os.environ},
    }
    limits = git_program.GitLimits(timeout_s=within_s, file_bytes=largest)
    try:
        return await git_program.run((*settings, *words), folder, variables, limits)
    except git_program.GitMissingError:
        raise AgentError("there is no git on the node: `apt-get install git`") from None
    except git_program.GitTimeoutError as error:
        raise AgentError(f"git {error.command} did not end within {within_s:g} s") from None
    except git_program.GitOutputError as error:
        raise AgentError(f"git {error.command} writes more than it may") from None
    except git_program.GitFailedError as error:
        why = "; ".join(map(quoted, error.lines[-3:])) or f"exit status {error.status}"
        raise AgentError(f"git {error.command}: {why}") from None


async def fetched(address: str, folder: Path, limits: ImageLimits) -> tuple[str, str]:
    """What lies at the URL *address*, as a file below *folder*: its name, and its digest. Raises AgentError."""
    folder.mkdir(mode=0o755, exist_ok=True)
    client = HttpClient(insecure=False, stall_s=limits.stall_s)
    await client.open()
    try:
        url = url_of(address, None, "the Dockerfile")
        reply = await client.request("GET", url)
        async with reply:
            if reply.status != 200:
                raise BadRequestError(f"{quoted(address)}: the server answers {reply.status} {quoted(reply.reason or '')}")
            name = _file_name(address, reply.headers.get("Content-Disposition", ""))
            path, count, found = folder / name, 0, hashlib.sha256()
            with path.open("wb") as file:
                async for data in client.chunks(reply):
                    count += len(data)
                    if count > limits.bytes:
                        raise BadRequestError(f"{quoted(address)} has more than {limits.bytes} bytes (limits.bytes)")
                    found.update(data)
                    await asyncio.to_thread(file.write, data)
            path.chmod(0o600)
            when = (
                email.utils.parsedate_to_datetime(reply.headers["Last-Modified"]).timestamp() if _dated(reply.headers) else 0.0
            )
            os.utime(path, (max(0.0, when), max(0.0, when)))
            return name, found.hexdigest()
    except (UnavailableError, ImageError) as error:
        raise BadRequestError(f"{quoted(address)} cannot be fetched: {error}") from None
    finally:
        await client.close()


def _dated(headers: object) -> bool:
    try:
        email.utils.parsedate_to_datetime(headers["Last-Modified"])  # type: ignore[index]
    except (KeyError, ValueError, TypeError):
        return False
    return True


def _file_name(address: str, disposition: str) -> str:
    """What a fetched file is called. Raises BadRequestError."""
    name = posixpath.basename(unquote(urlsplit(address).path.rstrip("/")))
    if not name and (match := re.search(r'filename="?([^";/]+)', disposition)):
        name = match[1]
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise BadRequestError(f"cannot determine filename from url: {quoted(address)}")
    return name


async def streamed(address: str, limits: ImageLimits) -> AsyncIterator[bytes]:
    """What lies at the URL *address*, as it comes. Raises BadRequestError."""
    client = HttpClient(insecure=False, stall_s=limits.stall_s)
    await client.open()
    try:
        reply = await client.request("GET", url_of(address, None, "the request"))
        async with reply:
            if reply.status != 200:
                raise BadRequestError(f"{quoted(address)}: the server answers {reply.status} {quoted(reply.reason or '')}")
            async for data in client.chunks(reply):
                yield data
    except (UnavailableError, ImageError) as error:
        raise BadRequestError(f"{quoted(address)} cannot be fetched: {error}") from None
    finally:
        await client.close()


async def is_archive(path: Path) -> bool:
    """Whether the file *path* begins like a tar, plain or compressed; a worker looks."""
    reply = await process.asked("transfer", ("--archive", str(path), ""))
    return bool(reply.get("archive"))


async def chunks(path: Path) -> AsyncIterator[bytes]:
    """The content of the file *path*, a MiB at a time."""
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, 1 << 20):
            yield data
