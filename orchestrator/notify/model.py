"""A notice, and how far its way to one receiver is."""

from __future__ import annotations

import msgspec

from agent.contract.notify import Kind
from agent.contract.wire import WireStruct


class Notice(WireStruct, frozen=True, kw_only=True):
    """What happened to *subject* (a stack, a node, a host name): *text* says it in words. *time* is in seconds since 1970."""

    id: str
    kind: Kind
    subject: str
    text: str
    time: float


class Trouble(WireStruct, frozen=True, kw_only=True):
    """A condition that holds, reported once: its key is kind and subject."""

    kind: Kind
    subject: str
    text: str
    since: float = msgspec.field(name="told")


class Delivery(WireStruct, frozen=True, kw_only=True):
    """A notice on its way by *channel* (`webhook https://…`). *next* is when it is tried again, in seconds since 1970; one
    that is *dead* is tried no more, until somebody says so."""

    notice: Notice
    channel: str
    attempts: int = 0
    next: float = 0.0
    problem: str = ""
    dead: bool = False

    @property
    def id(self) -> str:
        """Of the notice and the channel."""
        import hashlib

        return f"{self.notice.id}-{hashlib.sha256(self.channel.encode()).hexdigest()[:8]}"
