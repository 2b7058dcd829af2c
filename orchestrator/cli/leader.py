"""Which server to ask: the one that leads among those that PYSTACK_HOST names, and what to do while none does.

For some seconds after the end of a leader no server leads. A request that came to no server, or to one that refused it because
it does not lead, has changed nothing: it is sent again until a server leads, or the time is over.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from orchestrator import STALE
from orchestrator.cli.http import Connection
from orchestrator.errors import PystackError, RefusedError, UnreachableError

T = TypeVar("T")
ANSWER_S = 5.0
"""How long a server that PYSTACK_HOST names, among others, may take to say whether it leads."""
TAKEOVER_S = 20.0
"""How long a command waits for a server to lead: the lease of the last one (4 s), elections in etcd, and a busy machine."""
PAUSE_S = 0.2
LEADS = 2


class NoLeaderError(RefusedError):
    """The server that was asked does not lead, and nothing was done. *leader* leads, as far as it knows; "" if none does."""

    def __init__(self, message: str, status: int, leader: str) -> None:
        super().__init__(message, status)
        self.leader = leader


class LostError(UnreachableError):
    """The server went away after it had the request: it may have done what was asked."""


class LeaderLostError(UnreachableError):
    """The server stopped leading while it did what was asked: the next one does it, if it is asked again."""


def authorization() -> dict[str, str]:
    """The header that shows PYSTACK_TOKEN, where there is one. Source: RFC 6750, section 2.1."""
    token = os.environ.get("PYSTACK_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def choose(places: Sequence[str], open_connection: Callable[[str], Connection]) -> str:
    """Which of *places* has the server that leads, or else one that answers. All are asked at once: a server that hangs must
    not keep the others from answering. Raises PystackError if none answers and one cannot be asked at all."""
    import queue
    import threading

    answers: queue.SimpleQueue[tuple[str, int | PystackError]] = queue.SimpleQueue()

    def ask(place: str) -> None:
        try:
            answers.put((place, _leadership_rank(place, open_connection)))
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


def _leadership_rank(place: str, open_connection: Callable[[str], Connection]) -> int:
    """LEADS if the server there leads, 1 if it answers from memory because no server can lead, otherwise 0. Raises PystackError
    if it cannot be asked."""
    try:
        connection = open_connection(place)
    except (OSError, UnreachableError):
        return 0
    try:
        connection.sock.settimeout(ANSWER_S)
        reply = connection.request("GET", "/v1/version", authorization(), None)
        return 0 if reply.status != 200 else 1 if reply.getheader(STALE) else LEADS
    except OSError:
        return 0
    finally:
        connection.close()


def through_takeover(attempt: Callable[[], T], *, several: bool) -> T:
    """What *attempt* returns; it is made again while no server leads. It raises NoLeaderError, or UnreachableError where
    nothing was done. With *several* servers to ask, one that is away may be the one that led. Raises what the last attempt
    did."""
    deadline, announced = time.monotonic() + TAKEOVER_S, False
    while True:
        try:
            return attempt()
        except LostError:
            raise
        except (NoLeaderError, UnreachableError) as error:
            waits = several or (isinstance(error, NoLeaderError) and not error.leader)
            if not waits or time.monotonic() > deadline:
                raise
            if not announced:
                print("no server leads: waiting for one to take over", file=sys.stderr)
                announced = True
            time.sleep(PAUSE_S)
