"""The entries of a tar stream, read once, forward. `tarfile` parses headers; nothing of its extraction is used.

Source: POSIX.1-2008 pax; GNU tar manual."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterator
from typing import Protocol, cast

from agent.contract.printable import quoted
from agent.trees.bounds import Bounds, entry_title
from agent.trees.errors import TreeError
from agent.trees.streams import CHUNK


class Readable(Protocol):
    """The source of an archive."""

    def read(self, size: int = ..., /) -> bytes:
        """At most *size* bytes, b"" at the end."""
        ...


_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
"""Of a header. Source: POSIX.1-2008, ustar Interchange Format."""
_PLAIN = frozenset((tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.XHDTYPE))


class _Header(tarfile.TarInfo):
    """The same header for the same block, in a third of the time: many layers have more headers than megabytes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """What `tarfile` makes of *buf*; what is not plain, or wrong, is left to it."""
        if len(buf) == tarfile.BLOCKSIZE and buf[156:157] in _PLAIN:
            made = cls()
            name, mode, uid, gid, size, mtime, chksum, kind, link, _, user, group, *device, prefix = _FIELDS.unpack(buf)
            try:
                made.chksum = _number(chksum)
                if made.chksum == sum(buf) - sum(chksum) + 8 * 0x20:
                    made.mode, made.uid, made.gid, made.size = _number(mode), _number(uid), _number(gid), _number(size)
                    made.mtime, made.type = _number(mtime), kind
                    made.devmajor, made.devminor = map(_number, device)
                    made.name, made.linkname, made.uname, made.gname, above = (
                        field.partition(b"\0")[0].decode(encoding, errors) for field in (name, link, user, group, prefix)
                    )
                    if kind == tarfile.DIRTYPE:
                        made.name = made.name.rstrip("/")
                    if above:
                        made.name = f"{above}/{made.name}"
                    return made
            except ValueError:
                pass
        return super().frombuf(buf, encoding, errors)


def _number(field: bytes) -> int:
    """An octal number, nothing being 0; raises ValueError for any other, such as those to the base of 256."""
    digits = field.partition(b"\0")[0].strip() or b"0"
    if not digits.isdigit():
        raise ValueError
    return int(digits, 8)


class TarReader:
    """The archive in *stream*, called *title* in messages ("archive", "layer" …), with as many entries as *bounds* allow."""

    def __init__(self, stream: Readable, title: str, bounds: Bounds) -> None:
        self._file = _ForwardFile(stream)
        self._title = title
        self._bounds = bounds
        self.entry = ""
        """The name of the entry that was read last, "" before the first."""

    def entries(self) -> Iterator[tarfile.TarInfo]:
        """The headers one after the other; of a file, `data` can be read before the next. Raises TreeError, OSError."""
        archive = self._open()
        count = 0
        while (entry := self._next(archive)) is not None:
            count += 1
            if count > self._bounds.entries:
                raise TreeError(f"the {self._title} has more than {self._bounds.entries} entries")
            self.entry = entry.name
            yield entry

    def data(self, size: int) -> Iterator[bytes]:
        """The next *size* bytes of the current entry, in chunks. Raises TreeError if the archive ends before."""
        while size > 0:
            data = self._file.read(min(size, CHUNK))
            if not data:
                raise TreeError(f"the {self._title} ends within its entry {quoted(self.entry)}")
            size -= len(data)
            yield data

    def wrong(self, why: str, name: str | None = None) -> TreeError:
        """The error that the current entry, or the one called *name*, *why*: "is …", "has …"."""
        return TreeError(f"{entry_title(self._title, self.entry if name is None else name)} {why}")

    def _open(self) -> tarfile.TarFile:
        try:
            return tarfile.TarFile(
                fileobj=self._file,  # type: ignore[arg-type]
                mode="r",
                errorlevel=2,
                encoding="utf-8",
                errors="surrogateescape",
                tarinfo=_Header,
            )
        except (TreeError, OSError):
            raise
        except Exception as error:
            raise self._invalid(error) from error

    def _next(self, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        """The next header. Any error of `tarfile` for garbage (ValueError, IndexError, …) is a fault of the archive."""
        try:
            entry = archive.next()
        except (TreeError, OSError, MemoryError):
            raise
        except Exception as error:
            raise self._invalid(error) from error
        archive.members = []  # type: ignore[attr-defined]  # or all headers would stay in memory
        if entry is None and self._file.last.strip(b"\0"):
            raise self._invalid(tarfile.ReadError("a header is damaged"))  # which `tarfile` takes for the end
        return entry

    def _invalid(self, error: Exception) -> TreeError:
        after = f" after {quoted(self.entry)}" if self.entry else ""
        why = quoted(str(error)) or type(error).__name__
        return TreeError(f"the {self._title} is not a valid tar archive{after}: {why}")


class _RawStream(io.RawIOBase):
    """A stream as the raw side of a buffered reader."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _ForwardFile:
    """The file that `tarfile` reads headers from: it can only go forward, and knows the block that was read last."""

    def __init__(self, stream: Readable) -> None:
        self._file = io.BufferedReader(cast("io.FileIO", _RawStream(stream)), CHUNK)
        self._at = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        self.last = self._file.read(size)
        self._at += len(self.last)
        return self.last

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        if position < self._at:
            raise tarfile.ReadError("a header leads back")
        while self._at < position and self.read(min(position - self._at, CHUNK)):
            pass
