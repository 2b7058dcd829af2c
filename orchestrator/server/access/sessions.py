"""Sessions of browsers, one-time links, and how often somebody may try to sign in.

In memory alone: with the server that leads they end. Source: OWASP Session Management Cheat Sheet (random identifiers, idle and
absolute end), OWASP Authentication Cheat Sheet (throttling).
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import msgspec

from orchestrator.errors import RefusedError
from orchestrator.server.access.model import Role

IDLE_S = 3600.0
LONGEST_S = 12 * 3600.0
LINK_S = 120.0
MOST = 10_000
"""Sessions, links and sources that are remembered at most: the oldest give way."""
FREE = 5
"""Failures after which each further attempt must wait."""
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0


Owner = Literal["user", "token", "socket"]


class Session(msgspec.Struct, kw_only=True):
    """One browser. It is that *of* a user called *name*, or of a token, and goes with that; or of somebody who came by a link
    from root's socket, with this *role* and these *stacks*. *token* is what changes must show besides the cookie."""

    name: str
    role: Role
    stacks: tuple[str, ...]
    of: Owner
    token: str
    begun: float
    used: float


class Sessions:
    """*clock* is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._links: OrderedDict[str, tuple[float, Session]] = OrderedDict()

    def begin(self, name: str, role: Role, stacks: tuple[str, ...], of: Owner) -> tuple[str, Session]:
        """A new session, and the secret of its cookie."""
        now = self._clock()
        session = Session(name=name, role=role, stacks=stacks, of=of, token=secrets.token_urlsafe(24), begun=now, used=now)
        secret = secrets.token_urlsafe(32)
        self._open[_key(secret)] = session
        while len(self._open) > MOST:
            self._open.popitem(last=False)
        return secret, session

    def find(self, secret: str) -> Session | None:
        """The session of a cookie, which is used by that; None if it has ended."""
        key, now = _key(secret), self._clock()
        session = self._open.get(key)
        if session is None:
            return None
        if now - session.used > IDLE_S or now - session.begun > LONGEST_S:
            del self._open[key]
            return None
        session.used = now
        self._open.move_to_end(key)
        return session

    def end(self, secret: str) -> None:
        """Sign out."""
        self._open.pop(_key(secret), None)

    def end_all_of(self, name: str) -> None:
        """Sign the user *name* out everywhere: its password or its rights are others."""
        for key in [k for k, s in self._open.items() if s.name == name]:
            del self._open[key]

    def link(self, name: str, role: Role, stacks: tuple[str, ...], of: Owner) -> str:
        """A secret that begins a session once, within LINK_S."""
        secret, now = secrets.token_urlsafe(32), self._clock()
        session = Session(name=name, role=role, stacks=stacks, of=of, token="", begun=now, used=now)
        self._links[_key(secret)] = now, session
        while len(self._links) > MOST:
            self._links.popitem(last=False)
        return secret

    def follow(self, secret: str) -> tuple[str, Session] | None:
        """Begin the session of a link; None if it was used, or is too old."""
        made, payload = self._links.pop(_key(secret), (0.0, None))
        if payload is None or self._clock() - made > LINK_S:
            return None
        return self.begin(payload.name, payload.role, payload.stacks, payload.of)


class Throttle:
    """Lets a source, and a name, try FREE times; then each failure doubles the time until the next attempt."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def check(self, *keys: str) -> None:
        """Raises RefusedError (429) if one of *keys* has to wait."""
        now = self._clock()
        waits = [until - now for key in keys if (until := self._failures.get(key, (0, 0.0))[1]) > now]
        if waits:
            raise RefusedError(f"too many attempts: wait {max(waits):.0f} s", 429)

    def failed(self, *keys: str) -> None:
        """An attempt of *keys* failed."""
        now = self._clock()
        for key in keys:
            count = self._failures.pop(key, (0, 0.0))[0] + 1
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(count - FREE, 16)) if count >= FREE else 0.0
            self._failures[key] = count, now + wait
        while len(self._failures) > MOST:
            self._failures.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """An attempt of *keys* was right: forget those that failed."""
        for key in keys:
            self._failures.pop(key, None)


def _key(secret: str) -> str:
    # a copy of the memory does not sign in
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
