"""A build context as a tar stream, less what .dockerignore leaves out.

Source: Dockerfile reference, ".dockerignore file": patterns of Go's filepath.Match with **, the last match decides, a
leading ! takes back in. The Dockerfile and the ignore file themselves always go along.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path


def patterns(text: str) -> list[tuple[re.Pattern[str], bool]]:
    """(pattern, ignored) in the order of the file."""
    out = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        keep = line.startswith("!")
        line = os.path.normpath(line.lstrip("!").strip()).strip("/")
        if line and line != ".":
            out.append((re.compile(_translate(line) + r"(?:/.*)?\Z", re.DOTALL), not keep))
    return out


def _translate(pattern: str) -> str:
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out += "(?:.*/)?"
            at += 3
            continue
        if pattern.startswith("**", at):
            out += ".*"
            at += 2
            continue
        if char == "[" and "]" in pattern[at + 1 :]:
            end = pattern.index("]", at + 1)
            out += "[" + pattern[at + 1 : end].replace("\\", "\\\\") + "]"
            at = end
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
        at += 1
    return out


def is_ignored(name: str, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    """Whether *name*, relative to the context, is left out."""
    ignored = False
    for pattern, verdict in rules:
        if pattern.match(name):
            ignored = verdict
    return ignored


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


def pack(context: Path, dockerfile: str, extra: Mapping[str, bytes], folders: Mapping[str, Path]) -> Iterator[bytes]:
    """The tar, in pieces. *extra* are files made up on the way, *folders* further ones by where they are to lie in it."""
    sink = _Sink()
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for prefix, folder in {"": context, **{f"{where}/": path for where, path in folders.items()}}.items():
            for name, path in _kept(folder, dockerfile):
                archive.add(path, prefix + name, recursive=False)
                if sink.size > 1 << 18:
                    yield sink.take()
        for name, data in extra.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
    yield sink.take()


def ignored_in(context: Path, dockerfile: str) -> list[tuple[re.Pattern[str], bool]]:
    """What is left out of a build: by the Dockerfile's own ignore file, or else by the context's."""
    own = context / f"{dockerfile}.dockerignore"
    ignore = own if own.is_file() else context / ".dockerignore"
    return patterns(ignore.read_text(errors="replace")) if ignore.is_file() else []


def _kept(context: Path, dockerfile: str) -> Iterator[tuple[str, str]]:
    """Files and folders that .dockerignore leaves in: (name in the context, path)."""
    rules = ignored_in(context, dockerfile)
    may_return = any(not ignored for _, ignored in rules)
    for directory, folders, files in os.walk(context):
        base = os.path.relpath(directory, context)
        prefix = "" if base == "." else f"{base}/"
        kept = []
        for folder in sorted(folders):
            if is_ignored(prefix + folder, rules) and not may_return:
                continue
            kept.append(folder)
            if not is_ignored(prefix + folder, rules):
                yield prefix + folder, os.path.join(directory, folder)
        folders[:] = kept
        for file in sorted(files):
            name = prefix + file
            if not is_ignored(name, rules) or name in (dockerfile, ".dockerignore"):
                yield name, os.path.join(directory, file)
