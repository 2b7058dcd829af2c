"""Sockets that systemd listens on before the server runs: a client that comes during a restart waits, and is not refused.

Source: sd_listen_fds(3): descriptors from 3 on, their number in LISTEN_FDS, meant for the process LISTEN_PID.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

FIRST = 3


@cache
def _given() -> dict[str, socket.socket]:
    """The sockets by path. The variables are taken away: no child takes them for its own."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    sockets = {}
    for descriptor in range(FIRST, FIRST + int(count)):
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
        if found.family == socket.AF_UNIX:
            sockets[str(found.getsockname())] = found
    return sockets


def socket_at(path: Path) -> socket.socket | None:
    """The listening socket at *path* that was handed over, which may be closed and asked for again; None if there is none."""
    found = _given().get(str(path))
    return found.dup() if found else None


def unlink(path: Path) -> None:
    """Remove the socket at *path*, unless it was handed over: then it is open for the next server."""
    if str(path) not in _given():
        path.unlink(missing_ok=True)
