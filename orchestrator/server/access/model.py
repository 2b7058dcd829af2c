"""Users, tokens, and the senders of requests."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from agent.contract.wire import WireStruct
from orchestrator.errors import RefusedError

Role = Literal["viewer", "operator", "admin"]
"""A viewer looks; an operator changes stacks too, and goes into their tasks; an admin does everything."""
Right = Literal["look", "operate", "administer"]
"""What a route needs."""
RIGHTS_OF: dict[Role, frozenset[Right]] = {
    "viewer": frozenset({"look"}),
    "operator": frozenset({"look", "operate"}),
    "admin": frozenset({"look", "operate", "administer"}),
}
ALL = ("*",)
"""The patterns of a user without limits."""
NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
PATTERN = re.compile(r"[a-z0-9_*?-]{1,128}")


class User(WireStruct, frozen=True, kw_only=True):
    """Somebody who signs in. *stacks* are patterns as in a shell (`shop-*`) of the names of stacks. *password* is
    its hash (`passwords.py`), "" if the user comes by an OpenID provider alone."""

    name: str
    role: Role
    stacks: tuple[str, ...] = ALL
    password: str = ""
    created: str = ""


class Token(WireStruct, frozen=True, kw_only=True):
    """What a program shows. *digest* is SHA-256 of the secret, in hexadecimal digits. *expires* is in seconds since 1970, 0.0
    for never."""

    name: str
    role: Role
    stacks: tuple[str, ...] = ALL
    digest: str
    created: str = ""
    expires: float = 0.0

    def has_expired(self) -> bool:
        """Whether its time is over."""
        return 0 < self.expires < time.time()


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of a request: *way* is how it was authenticated, *source* from where it came: an address, or `local`."""

    name: str
    role: Role
    stacks: tuple[str, ...] = ALL
    way: Literal["socket", "certificate", "token", "session", "nobody"]
    source: str

    @property
    def is_limited(self) -> bool:
        """Whether some stacks are not this caller's."""
        return "*" not in self.stacks

    def may(self, right: Right) -> bool:
        """Whether the role has *right*, of whichever stacks."""
        return self.way != "nobody" and right in RIGHTS_OF[self.role]

    def has_stack(self, stack: str) -> bool:
        """Whether *stack* is one of the caller's."""
        return any(fnmatchcase(stack, pattern) for pattern in self.stacks)


def check_grant(name: str, role: Role, stacks: Sequence[str]) -> None:
    """Raises RefusedError (400) if no user or token can be like this."""
    if not NAME.fullmatch(name):
        raise RefusedError(f"{name[:80]!r} is not a name: at most 64 of a-z, 0-9 and ._@+-, the first a letter or digit", 400)
    if wrong := [p for p in stacks if not PATTERN.fullmatch(p)]:
        raise RefusedError(f"{wrong[0][:80]!r} is not a pattern of stacks' names: use a-z, 0-9, _ and -, and * and ?", 400)
    if not stacks:
        raise RefusedError(f"{name}: name the stacks, * for all", 400)
    if role == "admin" and "*" not in stacks:
        raise RefusedError(f"{name}: an admin is limited to no stacks: make it an operator", 400)
