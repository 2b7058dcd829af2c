"""A build context as a tar stream, less what .dockerignore leaves out. The Dockerfile and the ignore file themselves always go
along: the node leaves them out in its turn. Source: Dockerfile reference, ".dockerignore file".
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.build import ignore
from agent.build.ignore import Rules
from agent.errors import BadRequestError
from orchestrator.errors import PystackError


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
                if sink.size > 1 << 18:
                    yield sink.take()
        for name, data in extra.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
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
