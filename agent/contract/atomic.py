"""Files that survive a crash: each is replaced in one step."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def write_atomically(path: Path, data: bytes, mode: int = 0o644, *, sync: bool = False) -> None:
    """Replace *path* by *data* in one step, or, where that raises OSError, not at all. *sync* makes it survive a power cut too,
    at the cost of an fsync."""
    temporary = f"{path.parent}/.{path.name}.{threading.get_native_id()}.tmp"  # one of its own for each thread of the host
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        _write_all(fd, data)
        if sync:
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    """Write all of *data*: a write to a disk that becomes full is short, and only the next one fails with ENOSPC."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
