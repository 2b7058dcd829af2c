"""The table of an image archive: `python -m agent.trees.members ARCHIVE PLAIN LIMITS`.

A compressed ARCHIVE is written to the file PLAIN first, as it is without compression. The reply is {"plain": whether that was
done, "members": {name: [offset, size]}}: where each file's content is, links followed within the archive. Nothing is unpacked.
Source: Docker Engine API v1.43, "Image tarball format" (older ones have links to shared layers).
"""

from __future__ import annotations

import os
import posixpath
import sys
import tarfile
from typing import BinaryIO

from agent.contract.printable import quoted
from agent.trees import confine, sandbox
from agent.trees.bounds import Bounds
from agent.trees.errors import TreeError
from agent.trees.paths import MAX_LINKS
from agent.trees.streams import CHUNK, Decompressed, Source, is_compressed

MAX_MEMBERS = 100_000


def table(archive: BinaryIO, plain: BinaryIO, bounds: Bounds) -> confine.Reply:
    """The reply for the open files *archive* and *plain*. Raises TreeError."""
    packed = is_compressed(archive.read(16))
    archive.seek(0)
    if packed:
        stream = Decompressed(Source(archive, None), bounds.bytes)
        while data := stream.read(CHUNK):
            plain.write(data)
        plain.seek(0)
    return {"plain": packed, "members": _members(plain if packed else archive, bounds)}


def _members(file: BinaryIO, bounds: Bounds) -> dict[str, tuple[int, int]]:
    files: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    end = 0
    for entry in entries(file):
        if entry.offset_data < end or entry.size < 0:
            raise TreeError(f"the archive's entry {quoted(entry.name)} lies within another one")
        end = entry.offset_data + (entry.size if entry.isreg() and entry.sparse is None else 0)
        name = posixpath.normpath(entry.name).lstrip("/")
        if len(os.fsencode(name)) > bounds.path_bytes:
            raise TreeError(f"the archive's entry {quoted(entry.name)} has a path longer than {bounds.path_bytes} bytes")
        files.pop(name, None)
        links.pop(name, None)
        if entry.isreg() and entry.sparse is None:
            files[name] = entry.offset_data, entry.size
        elif entry.issym():
            links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.linkname))
        elif entry.islnk():
            links[name] = posixpath.normpath(entry.linkname).lstrip("/")
        if len(files) + len(links) > MAX_MEMBERS:
            raise TreeError(f"the archive has more than {MAX_MEMBERS} entries")
    for name in links:
        goal = name
        for _ in range(MAX_LINKS):
            if goal not in links:
                break
            goal = links[goal]
        if goal in files:
            files[name] = files[goal]
    return files


def entries(file: BinaryIO) -> list[tarfile.TarInfo]:
    """The headers of the plain tar *file*, at most one more than MAX_MEMBERS. Raises TreeError for a damaged one."""
    found: list[tarfile.TarInfo] = []
    at = -1
    try:
        archive = tarfile.TarFile(fileobj=file, mode="r", errorlevel=2, encoding="utf-8", errors="surrogateescape")
        while (entry := archive.next()) is not None:
            if entry.offset <= at:
                raise tarfile.ReadError("a header leads back")
            at = entry.offset
            found.append(entry)
            if len(found) > MAX_MEMBERS:
                return found
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("a header is damaged")  # which `tarfile` takes for the end
    except (MemoryError, OSError):
        raise
    except Exception as error:  # any error of `tarfile` for garbage (ValueError, IndexError, …) is a fault of the archive
        after = f" after {quoted(found[-1].name)}" if found else ""
        raise TreeError(f"it is not a valid tar archive{after}: {quoted(str(error)) or type(error).__name__}") from error
    return found


def main(archive: str, plain: str, limits: str) -> int:
    """Write the table of *archive* and its plain form, confined; answers on standard output, returns the exit status."""
    bounds = Bounds.of(limits)
    try:
        files = open(archive, "rb"), open(plain, "wb+")  # noqa: SIM115 - the child reads and writes them
    except OSError as error:
        return confine.answer({"error": f"{error.filename} cannot be opened: {error.strerror}", "status": 500})
    return confine.answer(confine.run(lambda: table(*files, bounds), [], calls=sandbox.WRITE_CALLS, capabilities=()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
