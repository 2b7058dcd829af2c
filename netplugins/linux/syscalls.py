"""The C library, for system calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, call: str) -> int:
    """*result* of a *call* of the C library. Raises OSError, whose text begins with *call*, where it is negative."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result


def mount(source: bytes, target: bytes, kind: bytes | None, flags: int = 0, data: bytes | None = None) -> None:
    """mount(2). Raises OSError."""
    check(libc.mount(source, target, kind, flags, data), f"mount {(kind or b'').decode()} at {target.decode(errors='replace')}")
