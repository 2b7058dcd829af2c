"""A compressed stream as a file to read from, with the digests of both its sides, and never more in memory than was asked for.

Source: RFC 1952 §2.2 (gzip members), RFC 8878 (zstd frames), OCI Image Specification, layer.md.
"""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

import zstandard

from agent.trees.errors import TreeError

_inflate: Any = zlib
with contextlib.suppress(ImportError):  # twice zlib's speed, where it is installed
    from isal import isal_zlib as _inflate

CHUNK = 1 << 18
WINDOW = 1 << 27
"""The largest zstd window, and so memory, that is accepted: what `zstd --ultra --long=27` makes."""


class _Decompressor(Protocol):
    """The decompressors of bz2 and lzma."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """An object of zlib's kind with that protocol."""

    def __init__(self) -> None:
        self._object = _inflate.decompressobj(31)
        self._head = b""
        self._full = False

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if len(self._head) < 4:
            self._head = (self._head + data)[:4]
            if self._head[3:] >= b"\x20":  # ISA-L does not look at these bits
                raise zlib.error("unknown header flags set")
        given = self._object.unconsumed_tail + data
        out: bytes = self._object.decompress(given, max(max_length, 0))
        # where it gave all that was asked for, it may have more without a byte more to read
        self._full = 0 < max_length <= len(out)
        if given and not out and not self._object.eof and len(self._object.unconsumed_tail) == len(given):
            raise zlib.error("it goes on with neither an end nor data")  # ISA-L stands still at a header that zlib refuses
        return out

    @property
    def eof(self) -> bool:
        return bool(self._object.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._object.unused_data)

    @property
    def needs_input(self) -> bool:
        return not self._object.unconsumed_tail and not self._full


class _Members(io.RawIOBase):
    """Decompressed data of any number of streams one after the other; zeros after the last are padding."""

    def __init__(self, source: Source, make: Callable[[], _Decompressor]) -> None:
        self._source, self._make = source, make
        self._object: _Decompressor = make()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while True:
            if self._object.eof:
                self._rest = self._object.unused_data
                if not (self._rest or self._fill()) or not self._rest.lstrip(b"\0"):
                    return b""
                self._object = self._make()
            if self._object.needs_input and not self._rest and not self._fill():
                raise TreeError("the compressed data end too early")
            data, self._rest = self._rest, b""
            out = self._object.decompress(data, max(size, 1))
            if out:
                return out

    def _fill(self) -> bool:
        self._rest = self._source.read(CHUNK)
        return bool(self._rest)


class Source:
    """The compressed side: counted, hashed, and copied to *keep* where asked."""

    def __init__(self, stream: BinaryIO, keep: BinaryIO | None) -> None:
        self._stream, self._keep = stream, keep
        self._head = b""
        self.hash = hashlib.sha256()
        self.size = 0

    def head(self) -> bytes:
        """The first bytes, which stay to be read."""
        self._head = self._take(CHUNK)
        return self._head

    def read(self, size: int = -1) -> bytes:
        """At most *size* bytes, b"" at the end."""
        if self._head:
            data, self._head = self._head[:size] if size >= 0 else self._head, self._head[size:] if size >= 0 else b""
            return data
        return self._take(size if size > 0 else CHUNK)

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.hash.update(data)
        self.size += len(data)
        if self._keep:
            self._keep.write(data)
        return data


class Decompressed:
    """The plain side of *source*, by its first bytes, since media types are wrong in the wild.

    Raises TreeError if it does not decompress, or gives more than *limit* bytes."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source, self._limit = source, limit
        self._plain = _plain(source)
        self.hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int = CHUNK) -> bytes:
        """At most *size* plain bytes, b"" at the end. Raises TreeError if they are damaged or too many, OSError."""
        try:
            data: bytes = self._plain.read(min(size, CHUNK) if size > 0 else CHUNK)
        except (zlib.error, _inflate.error, OSError, lzma.LZMAError, zstandard.ZstdError, EOFError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the pipe or the disk
            raise TreeError(f"the data do not decompress: {error}") from error
        self.hash.update(data)
        self.size += len(data)
        if self.size > self._limit:
            raise TreeError(f"more than {self._limit} bytes when unpacked")
        return data

    def drain(self) -> None:
        """Read the rest on both sides: padding counts in digests."""
        while self.read(CHUNK):
            pass
        while self._source.read(CHUNK):
            pass


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


_MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0")


def is_compressed(head: bytes) -> bool:
    """Whether data that begin like this are of a compression that is known here."""
    return head.startswith(_MAGIC)


def _plain(source: Source) -> _Readable:
    head = source.head()
    if head[:2] == b"\x1f\x8b":
        return _Members(source, _Gzip)
    if head[:4] == b"\x28\xb5\x2f\xfd":
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        return decompressor.stream_reader(source, read_size=CHUNK, read_across_frames=True)  # type: ignore[arg-type]
    if head[:3] == b"BZh":
        return _Members(source, bz2.BZ2Decompressor)
    if head[:6] == b"\xfd7zXZ\0":
        return _Members(source, lzma.LZMADecompressor)
    return source
