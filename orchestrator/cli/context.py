"""A build context as a tar stream, less what .dockerignore leaves out.

Source: Dockerfile reference, ".dockerignore file": patterns of Go's filepath.Match with **, the last match decides, a
leading ! takes back in. The Dockerfile and the ignore file themselves always go along.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator
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

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        out, self.parts = b"".join(self.parts), []
        return out


def pack(context: Path, dockerfile: str, extra: dict[str, bytes]) -> Iterator[bytes]:
    """The tar, in pieces. *extra* are files made up on the way."""
    own = context / f"{dockerfile}.dockerignore"
    ignore = own if own.is_file() else context / ".dockerignore"
    rules = patterns(ignore.read_text()) if ignore.is_file() else []
    may_return = any(not ignored for _, ignored in rules)
    sink = _Sink()
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for directory, folders, files in os.walk(context):
            base = os.path.relpath(directory, context)
            prefix = "" if base == "." else f"{base}/"
            kept = []
            for folder in sorted(folders):
                if is_ignored(prefix + folder, rules) and not may_return:
                    continue
                kept.append(folder)
                if not is_ignored(prefix + folder, rules):
                    archive.add(os.path.join(directory, folder), prefix + folder, recursive=False)
            folders[:] = kept
            for file in sorted(files):
                name = prefix + file
                if is_ignored(name, rules) and name not in (dockerfile, ".dockerignore"):
                    continue
                archive.add(os.path.join(directory, file), name, recursive=False)
                yield sink.take()
        for name, data in extra.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    yield sink.take()
