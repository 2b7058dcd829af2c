"""Trees between a client and this node, a file at a time where it differs: fsutil's protocol.

The sender lists all files (STAT, each with its place in the list, and one without a file at the end); the receiver asks for
those that it lacks (REQ), whose bytes come in pieces (DATA, the last one empty), of several files in turns; FIN ends it from
both sides. What comes here becomes a tar, which a confined worker unpacks: no name of a client's is ever a path of this
process. Source: fsutil, send.go, receive.go (the order of packets), Go's os.FileMode.
"""

from __future__ import annotations

import hashlib
import stat
import tarfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from agent.buildkit import wire
from agent.buildkit.grpc import CallError, Stream
from agent.buildkit.messages import DATA, ERR, FIN, REQ, STAT, Packet, Stat
from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError, of_worker
from agent.settings import ImageLimits
from agent.trees import process

_DIR, _LINK, _DEVICE, _PIPE, _SOCKET, _CHAR = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24, 1 << 21
_SETUID, _SETGID, _STICKY = 1 << 23, 1 << 22, 1 << 20
_OTHERS = _DIR | _LINK | _DEVICE | _PIPE | _SOCKET | 1 << 19
AT_ONCE, ROOM = 64, 16 << 20
"""Files that are asked for at once, and bytes of them; one that is larger comes alone."""
PIECE = 32 << 10
BLOCK = tarfile.BLOCKSIZE


class Receiver:
    """Takes a tree from *stream*: first its list, then what of it differs from *before*, the marks of what is there already."""

    def __init__(self, stream: Stream, before: Mapping[str, str], limits: ImageLimits, progress: Callable[[int], None]) -> None:
        self._stream, self._before, self._limits, self._progress = stream, before, limits, progress
        self._stats: list[Stat] = []
        self._open: dict[int, bytearray] = {}
        self._done: set[int] = set()
        self.marks: dict[str, str] = {}
        """What each path of the tree is like, in a word."""

    @property
    def gone(self) -> list[str]:
        """Paths that are in the tree no more."""
        return sorted(p for p in self._before if p not in self.marks and p.strip("/."))

    async def begin(self) -> None:
        """Receive the list of files. Raises CallError, BadRequestError."""
        await self._list()
        self.marks = {s.path: _mark(s) for s in self._stats}
        if len(self.marks) != len(self._stats):
            raise BadRequestError("the client lists a file twice")

    @property
    def wanted(self) -> list[tuple[int, Stat]]:
        """The files that differ, with their places in the list."""
        return [(n, s) for n, s in enumerate(self._stats) if self.marks[s.path] != self._before.get(s.path)]

    async def contents(self, most: int) -> dict[str, bytes | str]:
        """What the files contain, *most* bytes of each, and what links say: of a few small files. Raises CallError,
        BadRequestError."""
        found: dict[str, bytes | str] = {}
        for number, one in enumerate(self._stats):
            if one.mode & _LINK:
                found[one.path] = one.linkname
            elif is_plain(one):
                if one.size > most:
                    raise BadRequestError(f"{quoted(one.path)} has more than {most} bytes")
                self._open[number] = bytearray()
                await self._stream.send(Packet(type=REQ, id=number))
                whole = b"".join([data async for data in self._content(number, one)])
                found[one.path] = whole[: one.size]
        await self.end()
        return found

    async def tar(self) -> AsyncIterator[bytes]:
        """The files that differ, as an archive. Raises CallError, BadRequestError."""
        batch: deque[tuple[int, Stat]] = deque()
        total = 0
        for number, one in self.wanted:
            bytes_of = one.size if is_plain(one) else 0
            if batch and (len(batch) >= AT_ONCE or total + bytes_of > ROOM):
                async for data in self._brought(batch):
                    yield data
                total = 0
            batch.append((number, one))
            total += bytes_of
        async for data in self._brought(batch):
            yield data
        yield bytes(2 * BLOCK)
        await self.end()

    async def end(self) -> None:
        """Nothing more is wanted. Raises CallError."""
        await self._stream.send(Packet(type=FIN))
        async for packet in self._stream.messages(Packet):
            if packet.type == FIN:
                break
        await self._stream.end()
        async for _ in self._stream.messages(Packet):
            pass

    async def _list(self) -> None:
        while (packet := await self._stream.receive(Packet)) is not None:
            _check(packet)
            if packet.type != STAT:
                raise BadRequestError("the client sends something else before its list of files has ended")
            if packet.stat is None:
                return
            self._stats.append(packet.stat)
            if len(self._stats) > self._limits.entries:
                raise BadRequestError(f"the client lists more than {self._limits.entries} files (limits.entries)")
        raise BadRequestError("the client's list of files has no end")

    async def _brought(self, batch: deque[tuple[int, Stat]]) -> AsyncIterator[bytes]:
        """Ask for all of *batch*, and give them out in its order."""
        for number, one in batch:
            if is_plain(one):
                self._open[number] = bytearray()
                await self._stream.send(Packet(type=REQ, id=number))
        while batch:
            number, one = batch.popleft()
            head = header(one)
            if head is None:
                continue
            yield head
            if is_plain(one):
                async for data in self._content(number, one):
                    yield data

    async def _content(self, number: int, one: Stat) -> AsyncIterator[bytes]:
        """The bytes of a file as its header says, even if the file has changed meanwhile."""
        left = one.size
        while True:
            piece = bytes(self._open[number][:left])
            self._open[number].clear()
            left -= len(piece)
            if piece:
                self._progress(len(piece))
                yield piece
            if number in self._done:
                break
            await self._more()
        del self._open[number]
        if left:
            raise BadRequestError(f"{quoted(one.path)} became shorter while it was sent: build again")
        yield bytes(-one.size % BLOCK)

    async def _more(self) -> None:
        packet = await self._stream.receive(Packet)
        if packet is None:
            raise BadRequestError("the client ends before it sent all that was asked for")
        _check(packet)
        if packet.type != DATA or packet.id not in self._open or packet.id in self._done:
            raise BadRequestError("the client sends what nobody asked for")
        if packet.data:
            self._open[packet.id] += packet.data
            if len(self._open[packet.id]) > ROOM + self._stats[packet.id].size:
                raise BadRequestError(f"{quoted(self._stats[packet.id].path)} is longer than its size says")
        else:
            self._done.add(packet.id)


def _check(packet: Packet) -> None:
    if packet.type == ERR:
        raise BadRequestError(f"the client cannot send its files: {quoted(packet.data.decode(errors='replace'))}")


def is_plain(one: Stat) -> bool:
    """Whether it is a file with bytes of its own."""
    return not one.mode & _OTHERS and not one.linkname


def _mark(one: Stat) -> str:
    return hashlib.blake2b(wire.encode(one), digest_size=12).hexdigest()


def header(one: Stat) -> bytes | None:
    """How a tar begins the file; None for a kind that no build context has (sockets, devices)."""
    entry = tarfile.TarInfo(one.path)
    entry.mode = unix_mode(one.mode) & 0o7777
    entry.mtime = max(0, one.mtime // 1_000_000_000)
    if one.mode & _DIR:
        entry.type = tarfile.DIRTYPE
    elif one.mode & _LINK:
        entry.type, entry.linkname = tarfile.SYMTYPE, one.linkname
    elif one.mode & _PIPE:
        entry.type = tarfile.FIFOTYPE
    elif one.mode & _OTHERS:
        return None
    elif one.linkname:
        entry.type, entry.linkname = tarfile.LNKTYPE, one.linkname
    else:
        if one.size < 0:
            raise BadRequestError(f"{quoted(one.path)} has a size below zero")
        entry.size = one.size
    try:
        return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    except ValueError as error:
        raise BadRequestError(f"{quoted(one.path)}: {error}") from None


def unix_mode(mode: int) -> int:
    """The mode of stat(2) for one of Go's."""
    kind = stat.S_IFREG
    for bit, found in ((_DIR, stat.S_IFDIR), (_LINK, stat.S_IFLNK), (_PIPE, stat.S_IFIFO), (_SOCKET, stat.S_IFSOCK)):
        kind = found if mode & bit else kind
    if mode & _DEVICE:
        kind = stat.S_IFCHR if mode & _CHAR else stat.S_IFBLK
    special = (stat.S_ISUID, _SETUID), (stat.S_ISGID, _SETGID), (stat.S_ISVTX, _STICKY)
    return kind | mode & 0o777 | sum(bit for bit, go in special if mode & go)


def _go_mode(mode: int) -> int:
    special = (stat.S_ISUID, _SETUID), (stat.S_ISGID, _SETGID), (stat.S_ISVTX, _STICKY)
    return mode & 0o777 | sum(go for bit, go in special if mode & bit)


# --- the other way ---------------------------------------------------------------------------------------------------


async def send(stream: Stream, archive: Path) -> None:
    """Send the tree that the tar *archive* holds; a confined worker reads its headers. Raises CallError, AgentError."""
    reply = await process.asked("headers", (str(archive),))
    if "error" in reply:
        raise of_worker(reply, AgentError)
    entries = sorted(reply["entries"], key=lambda e: e["name"].split("/"))
    entries = [e for e in entries if e["name"].strip("./")]
    with archive.open("rb") as file:
        for entry in entries:
            await stream.send(Packet(type=STAT, stat=_stat(entry)))
        await stream.send(Packet(type=STAT))
        while (packet := await stream.receive(Packet)) is not None:
            if packet.type == FIN:
                await stream.send(Packet(type=FIN))
                break
            if packet.type == ERR:
                raise CallError(2, f"the client cannot take the files: {quoted(packet.data.decode(errors='replace'))}")
            if packet.type != REQ or packet.id >= len(entries):
                raise BadRequestError("the client asks for a file that is not there")
            entry = entries[packet.id]
            file.seek(entry["offset"])
            left = entry["size"]
            while left > 0 and (data := file.read(min(PIECE, left))):
                left -= len(data)
                await stream.send(Packet(type=DATA, id=packet.id, data=data))
            await stream.send(Packet(type=DATA, id=packet.id))
    await stream.end()
    async for _ in stream.messages(Packet):
        pass


_KINDS = {
    tarfile.DIRTYPE: _DIR,
    tarfile.SYMTYPE: _LINK,
    tarfile.FIFOTYPE: _PIPE,
    tarfile.CHRTYPE: _DEVICE | _CHAR,
    tarfile.BLKTYPE: _DEVICE,
}


def _stat(entry: dict[str, Any]) -> Stat:
    kind = entry["type"].encode("latin-1")
    link = entry["linkname"].removeprefix("./") if kind == tarfile.LNKTYPE else entry["linkname"]
    return Stat(
        path=entry["name"].removeprefix("./").rstrip("/"),
        mode=_go_mode(entry["mode"]) | _KINDS.get(kind, 0),
        uid=entry["uid"],
        gid=entry["gid"],
        size=entry["size"],
        mtime=entry["mtime"],
        linkname=link if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "",
        devmajor=entry["devmajor"],
        devminor=entry["devminor"],
    )
