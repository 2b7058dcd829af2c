"""Docker's multiplexed stream: frames of a type, three zero bytes, a length and a payload.

Source: Docker Engine API v1.48, ContainerAttach, "Stream format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEAD = struct.Struct(">BxxxI")
LARGEST = 16 << 20
"""Bytes of a payload: nodes send a line, or 64 KiB, at a time."""


class FrameError(Exception):
    """A frame claims a payload that nobody sends."""


def frame(stream: int, payload: bytes) -> bytes:
    """The frame of *payload*; *stream* is 1 for standard output, 2 for standard error."""
    return HEAD.pack(stream, len(payload)) + payload


class FrameDecoder:
    """Cuts a stream that arrives in pieces of any length into its frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(stream, payload) of each frame that *data* completes. Raises FrameError."""
        self._pending += data
        while len(self._pending) >= HEAD.size:
            stream, length = HEAD.unpack_from(self._pending)
            if length > LARGEST:
                raise FrameError(f"a frame of {length} bytes: at most {LARGEST}")
            end = HEAD.size + length
            if len(self._pending) < end:
                return
            payload = bytes(self._pending[HEAD.size : end])
            del self._pending[:end]
            yield stream, payload
