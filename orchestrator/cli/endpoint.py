"""Where the server is, and a connection to it."""

from __future__ import annotations

import os
import socket

from orchestrator.cli.http import Connection
from orchestrator.cli.leader import choose
from orchestrator.errors import PystackError

REMOTE = ("ssh://", "tcp://", "https://")


def control_socket() -> str:
    """Where the server listens, the path of a socket or ssh://user@host or tcp://host:port: PYSTACK_HOST, the one that leads
    where that names several (unix://a,ssh://root@b), or the instance's own place. Raises PystackError."""
    host = os.environ.get("PYSTACK_HOST", "")
    words = host.split(",") if host else []
    places = [w.removeprefix("unix://") for w in words]
    if strange := [w for w in words if not w.startswith(("unix://", *REMOTE))]:
        raise PystackError(
            f"PYSTACK_HOST={strange[0]}: write unix:///path, ssh://user@host or tcp://host:port (https:// is the same)"
        )
    if places:
        return places[0] if len(places) == 1 else choose(places, lambda place: Connection(dial(place), []))
    if root := os.environ.get("PYSTACK_ROOT"):
        return f"{root}/run/pystack.sock"
    if not hasattr(os, "geteuid"):
        raise PystackError("servers run on Linux: name one with PYSTACK_HOST=ssh://user@host or https://host:port")
    if os.geteuid() == 0:
        return "/run/pystack/pystack.sock"
    return f"{os.environ.get('XDG_RUNTIME_DIR', f'/run/user/{os.geteuid()}')}/pystack/pystack.sock"


def dial(place: str) -> socket.socket:
    """A connection to the server there. Raises OSError, PystackError, UnreachableError."""
    if place.startswith(REMOTE):
        if place.startswith("ssh://"):
            from orchestrator.cli import remote as way
        else:
            from orchestrator import tls as way  # type: ignore[no-redef]
        return way.dial(place)
    if not hasattr(socket, "AF_UNIX"):
        raise PystackError(f"{place}: this system has no unix sockets: write PYSTACK_HOST=ssh://user@host or https://host:port")
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(place)
    except OSError:
        sock.close()
        raise
    return sock
