"""Calls to etcd's members: with a deadline, on one member after the other, and with a login where etcd has users."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

# gRPC's handlers run at each fork of this process, one for every container, and not all forks survive them
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
import grpc.aio
from google.protobuf.message import Message

from agent.contract.backoff import Backoff
from orchestrator.store.etcd import rpc
from orchestrator.store.etcd.address import Address, is_local
from orchestrator.store.etcd.rpc import Rpc
from orchestrator.store.interface import StoreError

T = TypeVar("T")
CALL_S, GIVE_UP_S = 2.0, 6.0
"""The deadline of one call on one member, and when no further member is tried."""
LOGINS = 8
"""How often a call is repeated because etcd no longer accepts the token: tokens become void whenever users change."""
CHANNEL = (
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", 64 << 20),
)
_NO_TOKEN = ("invalid auth token", "user name is empty", "auth token is not provided", "revision of auth store is old")
"""etcd's texts for a missing or void token: their gRPC codes, INVALID_ARGUMENT and UNAUTHENTICATED, mean other errors too."""
_RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)


class StatusError(StoreError):
    """etcd refused a call; *code* is gRPC's."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Client:
    """The members of one etcd cluster. *preferred* is the number of the member that answered last."""

    def __init__(self, address: Address) -> None:
        """Connects when the first call is made. Raises StoreError if a certificate cannot be read."""
        self.address = address
        self.channels = _channels(address)
        # a member on this host fails with this host: a watch of it never waits for a machine that crashed
        self.preferred = next((n for n, member in enumerate(address.members) if is_local(member)), 0)
        self._token = ""

    @property
    def has_users(self) -> bool:
        """Whether etcd has accepted a login."""
        return bool(self._token)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of every call: the token; a member without a leader refuses the call instead of waiting for one."""
        return (("hasleader", "true"), *((("token", self._token),) if self._token else ()))

    async def call(self, method: Rpc[T], request: Message) -> T:
        """The answer of the first member that gives one. Raises StatusError if etcd refuses the request, StoreError if no
        member answers in time."""

        async def once(channel: grpc.aio.Channel) -> T:
            answer: T = await method.unary(channel)(request, timeout=CALL_S, metadata=self.metadata)
            return answer

        for _ in range(LOGINS):
            try:
                return await self._try(once)
            except StatusError as error:
                if not self.address.user or not any(text in str(error) for text in _NO_TOKEN):
                    raise
            await self.log_in()
        return await self._try(once)

    async def log_in(self) -> None:
        """Get a token, if the address has a user. An etcd without users is fine. Raises StoreError."""
        if not self.address.user:
            return
        request = rpc.authenticate_request(self.address.user, self.address.password)

        async def once(channel: grpc.aio.Channel) -> rpc.TokenAnswer:
            answer: rpc.TokenAnswer = await rpc.AUTHENTICATE.unary(channel)(request, timeout=CALL_S)
            return answer

        try:
            self._token = str((await self._try(once)).token)
        except StatusError as error:
            if error.code != grpc.StatusCode.FAILED_PRECONDITION:  # "authentication is not enabled"
                raise

    async def _try(self, once: Callable[[grpc.aio.Channel], Coroutine[Any, Any, T]]) -> T:
        """*once* on one member after the other, until one answers, for six seconds. Raises StatusError, StoreError."""
        until = time.monotonic() + GIVE_UP_S
        for pause in Backoff(0.05, 0.5):
            number = self.preferred % len(self.channels)
            try:
                return await once(self.channels[number])
            except grpc.aio.UsageError as error:  # `close` was called: this server leads no more
                raise StoreError(f"the connection to etcd is closed: {error}") from None
            except grpc.aio.AioRpcError as error:
                text = _describe(error, self.address)
                if error.code() not in _RETRIED:
                    raise StatusError(error.code(), text) from None
                if time.monotonic() >= until:
                    raise StoreError(f"etcd at {self.address.members[number]} does not answer: {text}") from None
            self.preferred = number + 1
            await asyncio.sleep(pause)
        raise AssertionError("a Backoff does not end")

    async def close(self) -> None:
        """Close the connections."""
        for channel in self.channels:
            await channel.close(None)


def _channels(address: Address) -> list[grpc.aio.Channel]:
    if not (address.ca or address.cert):
        return [grpc.aio.insecure_channel(m, options=CHANNEL) for m in address.members]
    try:
        parts = [Path(p).read_bytes() if p else None for p in (address.ca, address.key, address.cert)]
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}") from error
    credentials = grpc.ssl_channel_credentials(*parts)
    return [grpc.aio.secure_channel(m, credentials, options=CHANNEL) for m in address.members]


def _describe(error: grpc.aio.AioRpcError, address: Address) -> str:
    """The text of *error* for a user, with what to do about it."""
    text = error.details() or str(error.code())
    if "space exceeded" in text:
        return "its space alarm is raised, and nothing can be written: compact and defragment it, then `etcdctl alarm disarm`"
    if "CERTIFICATE" in text.upper() or "SSL" in text or "handshake" in text.lower():
        return f"TLS with it fails ({text}): see --ca {address.ca or '(not given)'}, --cert and --key"
    if "leader" in text or "quorum" in text:
        return f"it has no quorum ({text})"
    return text
