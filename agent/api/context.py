"""A build context as clients send it: plain or compressed, whole or without the end that tar(1) asks for.

Source: Docker Engine API v1.48, ImageBuild ("identity, gzip, bzip2, xz"); POSIX pax, "ustar Interchange Format".
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import AsyncIterator
from typing import Protocol

from agent.errors import BadRequestError

MAGIC = 6
BLOCK = 512
END = bytes(2 * BLOCK)


class _Decompressor(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, /) -> bytes:
        out = self._inner.decompress(data)
        while self._inner.eof and self._inner.unused_data:  # a file of several members, as pigz writes it
            rest, self._inner = self._inner.unused_data, zlib.decompressobj(wbits=31)
            out += self._inner.decompress(rest)
        return out


def _decompressor(head: bytes) -> _Decompressor | None:
    if head.startswith(b"\x1f\x8b"):
        return _Gzip()
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor() if head.startswith(b"\xfd7zXZ\0") else None


async def plain(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The tar in *source*, with the padding and the two empty blocks at the end that Go's writers may leave out.

    Raises BadRequestError if it is compressed and damaged."""
    total, tail = 0, b""
    async for data in _decompressed(source):
        total += len(data)
        tail = (tail + data)[-len(END) :]
        yield data
    if tail != END:  # the reader may have gone once it saw the end
        yield b"\0" * (-total % BLOCK) + END


async def _decompressed(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    head = b""
    async for data in source:
        head += data
        if len(head) >= MAGIC:
            break
    found = _decompressor(head)
    try:
        yield found.decompress(head) if found else head
        async for data in source:
            yield found.decompress(data) if found else data
    except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
        raise BadRequestError(f"the build context is damaged: {error}") from None
