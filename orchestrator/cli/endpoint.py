"""Where the server is, and a connection to it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence

from orchestrator import STALE
from orchestrator.cli.http import Connection
from orchestrator.errors import PystackError, UnreachableError

REMOTE = ("ssh://", "tcp://", "https://")
ANSWER_S = 5.0
"""How long a server that PYSTACK_HOST names, among others, may take to say whether it leads."""
LEADS = 2


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
        return places[0] if len(places) == 1 else _leader_of(places)
    if root := os.environ.get("PYSTACK_ROOT"):
        return f"{root}/run/pystack.sock"
    if not hasattr(os, "geteuid"):
        raise PystackError("servers run on Linux: name one with PYSTACK_HOST=ssh://user@host or https://host:port")
    if os.geteuid() == 0:
        return "/run/pystack/pystack.sock"
    return f"{os.environ.get('XDG_RUNTIME_DIR', f'/run/user/{os.geteuid()}')}/pystack/pystack.sock"


def _leader_of(places: Sequence[str]) -> str:
    """Which of *places* has the server that leads, or else one that answers. All are asked at once: a server that hangs must
    not keep the others from answering. Raises PystackError if none answers and one cannot be asked at all."""
    import queue
    import threading

    answers: queue.SimpleQueue[tuple[str, int | PystackError]] = queue.SimpleQueue()

    def ask(place: str) -> None:
        try:
            answers.put((place, _leadership_rank(place)))
        except PystackError as error:
            answers.put((place, error))

    for place in places:
        threading.Thread(target=ask, args=(place,), daemon=True).start()
    ranks = dict.fromkeys(places, 0)
    errors: list[PystackError] = []
    deadline = time.monotonic() + ANSWER_S
    with contextlib.suppress(queue.Empty):
        for _ in places:
            place, rank = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            if rank == LEADS:
                return place
            if isinstance(rank, PystackError):
                errors.append(rank)
            else:
                ranks[place] = rank
    if errors and not any(ranks.values()):
        raise errors[0]
    return max(places, key=ranks.__getitem__)


def _leadership_rank(place: str) -> int:
    """LEADS if the server there leads, 1 if it answers from memory because no server can lead, otherwise 0. Raises PystackError
    if it cannot be asked."""
    try:
        connection = Connection(dial(place), [])
    except (OSError, UnreachableError):
        return 0
    try:
        connection.sock.settimeout(ANSWER_S)
        reply = connection.request("GET", "/v1/version", {}, None)
        return 0 if reply.status != 200 else 1 if reply.getheader(STALE) else LEADS
    except OSError:
        return 0
    finally:
        connection.close()


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
