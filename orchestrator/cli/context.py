"""A build context as a tar stream, whole or what a node lacks of it, less what .dockerignore leaves out.

The Dockerfile and the ignore file themselves always go along: the node leaves them out in its turn. Source: Dockerfile
reference, ".dockerignore file".
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from agent.build import ignore
from agent.build.ignore import Rules
from agent.errors import BadRequestError
from orchestrator.errors import PystackError

PIECE = 1 << 18
FRESH_NS = 2_000_000_000
"""Nanoseconds within which a file system may give two changes one time (FAT: two seconds)."""


def rules_of(text: str, where: str) -> Rules:
    """Those of an ignore file, which messages call *where*. Raises PystackError."""
    try:
        return Rules(ignore.read(text))
    except BadRequestError as error:
        raise PystackError(f"{where}: {error}") from None


class _Sink(io.RawIOBase):
    """Collects what tarfile writes, to be handed on piece by piece."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.parts.append(bytes(data))
        self.size += len(data)
        return len(data)

    def take(self) -> bytes:
        out, self.parts, self.size = b"".join(self.parts), [], 0
        return out


def pack(context: Path | None, dockerfile: str, extra: Mapping[str, bytes], folders: Mapping[str, Path]) -> Iterator[bytes]:
    """The tar, in pieces. *extra* are files made up on the way, *folders* further ones by where they are to lie in it. A
    context that lies elsewhere is None."""
    sink = _Sink()
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        first = {"": context} if context else {}
        for prefix, folder in {**first, **{f"{where}/": path for where, path in folders.items()}}.items():
            for name, path in _kept(folder, dockerfile):
                archive.add(path, prefix + name, recursive=False)
                if sink.size > PIECE:
                    yield sink.take()
        for name, data in extra.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
    yield sink.take()


class Listed(NamedTuple):
    """A file or folder of a context: its name there, its path here, and a mark that changes when it does."""

    name: str
    path: str
    mark: str


def listing(context: Path, dockerfile: str) -> list[Listed]:
    """All of a context. A file that changed a moment ago may change again with the same times: it has a mark of its own."""
    now = time.time_ns()
    return [Listed(name, path, _mark(path, now)) for name, path in _kept(context, dockerfile)]


def _mark(path: str, now_ns: int) -> str:
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        return f"{status.st_mode:o}"
    if stat.S_ISLNK(status.st_mode):
        return f"{status.st_mode:o} {Path(path).readlink()}"
    fresh = f" {now_ns}" if now_ns - max(status.st_mtime_ns, status.st_ctime_ns) < FRESH_NS else ""
    return f"{status.st_mode:o} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}{fresh}"


def is_same(path: str, digest: str) -> bool:
    """Whether the file *path* has the SHA-256 and the octal mode that *digest* says."""
    import hashlib

    try:
        with Path(path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            return digest == f"{found} {stat.S_IMODE(os.fstat(file.fileno()).st_mode):o}"
    except OSError:
        return False


def pack_some(entries: Iterable[Listed]) -> Iterator[bytes]:
    """The tar of *entries*, in pieces."""
    sink = _Sink()
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for one in entries:
            archive.add(one.path, one.name, recursive=False)
            if sink.size > PIECE:
                yield sink.take()
    yield sink.take()


def ignored_in(context: Path, dockerfile: str) -> Rules:
    """What is left out of a build: by the Dockerfile's own ignore file, or else by the context's. Raises PystackError."""
    own = context / f"{dockerfile}.dockerignore"
    file = own if own.is_file() else context / ".dockerignore"
    return rules_of(file.read_text(errors="replace") if file.is_file() else "", str(file))


def _kept(context: Path, dockerfile: str) -> Iterator[tuple[str, str]]:
    """Files and folders that .dockerignore leaves in: (name in the context, path)."""
    rules = ignored_in(context, dockerfile)
    for directory, folders, files in os.walk(context):
        base = os.path.relpath(directory, context)
        prefix = "" if base == "." else f"{base}/"
        kept = []
        for folder in sorted(folders):
            if rules.ignores(prefix + folder) and not rules.may_return:
                continue
            kept.append(folder)
            if not rules.ignores(prefix + folder):
                yield prefix + folder, os.path.join(directory, folder)
        folders[:] = kept
        for one in sorted(files):
            name = prefix + one
            if not rules.ignores(name) or name in (dockerfile, ".dockerignore"):
                yield name, os.path.join(directory, one)
