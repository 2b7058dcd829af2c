"""The Store on etcd, version 3.4 or later: several members, any of which may die.

Each call has a deadline and tries the members in turn. A write whose answer was lost may have happened or not, so every
transaction also writes one of a few marks, and compares it with what it was: tried again, it either finds its own mark,
and has happened once, or happens now. The marks fence too: who takes the store over writes them all, and from then on
nothing that the old one still has on its way can happen. Source: etcd API reference; Jepsen's report on etcd 3.4.3.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

# its handlers run at each fork of this process, of which every container is one, and not all forks survive them
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
import grpc.aio
import msgspec

from agent.contract.manifest import EtcdCredentials
from orchestrator.store.etcdrpc import MESSAGES, PROGRESS, method
from orchestrator.store.interface import (
    CompactedError,
    Compare,
    Entry,
    KeyChange,
    Op,
    Put,
    StoreError,
    TransactionResult,
    validate_ops,
)

T = TypeVar("T")
CALL_S, GIVE_UP_S = 2.0, 6.0
PAGE, PAGE_BYTES = 1000, 16 << 20
"""Keys of the first page of a list, and bytes of the later ones."""
MAX_INFLIGHT = 8  # transactions under way at the same time
LEASE_S, KEEP_S, SILENT_S = 6, 1.0, 5.0
FENCE_PREFIX, LEADER = "\0mark/", "\0leader"  # before all keys of ours
CHANNEL = (
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", 64 << 20),
)
NO_TOKEN = ("invalid auth token", "user name is empty", "auth token is not provided", "revision of auth store is old")
"""What etcd says where it wants to know again, or for the first time, who is asking; a token is void once users change."""
RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)


class FencedError(StoreError):
    """Another server leads now; nothing of this one's is written any more."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """`etcd://[user:password@]host:port,host:port/prefix`; *ca*, *cert* and *key* are PEM files, for TLS."""

    members: tuple[str, ...]
    prefix: str
    ca: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    password: str = ""

    @classmethod
    def parse(cls, url: str, *, ca: str = "", cert: str = "", key: str = "") -> Address:
        """Raises StoreError where *url* is none."""
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        members = tuple(m if ":" in m.rpartition("]")[2] else f"{m}:2379" for m in hosts.split(",") if m)
        if parts.scheme != "etcd" or not members or parts.query or parts.fragment:
            raise StoreError(f"{url!r} is no store: it is written etcd://host:port,host:port/prefix")
        if bool(cert) != bool(key):
            raise StoreError("--cert and --key go together")
        return cls(
            members=members,
            prefix=parts.path.strip("/") or "pystack",
            ca=ca,
            cert=cert,
            key=key,
            user=unquote(user),
            password=unquote(password),
        )


class EtcdStore:
    """Open with `await EtcdStore.open(address)`. Only who called `lead` may write. Raises StoreError."""

    def __init__(self, address: Address, channels: Sequence[grpc.aio.Channel]) -> None:
        self.address = address
        self._channels = list(channels)
        # one on this host goes when this host goes: a watch of it never waits for a machine that crashed
        self._first = next((n for n, member in enumerate(address.members) if _is_here(member)), 0)
        """The member that answered last."""
        self._root = f"/{address.prefix}/"
        self._slots: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._token = ""
        self._lease = 0
        self._keeper: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()
        """Set once this server does not lead any more."""

    @classmethod
    async def open(cls, address: Address) -> EtcdStore:
        credentials = None
        if address.ca or address.cert:
            try:
                parts = [Path(p).read_bytes() if p else None for p in (address.ca, address.key, address.cert)]
            except OSError as error:
                raise StoreError(f"{error.filename}: {error.strerror}") from error
            credentials = grpc.ssl_channel_credentials(*parts)
        channels = [
            grpc.aio.secure_channel(m, credentials, options=CHANNEL)
            if credentials
            else grpc.aio.insecure_channel(m, options=CHANNEL)
            for m in address.members
        ]
        store = cls(address, channels)
        try:
            await store._log_in()
            await store.revision()
        except StoreError:
            await store.close()
            raise
        return store

    # --- leading -----------------------------------------------------------------------------------------------

    async def lead(self, name: str, *, wait: bool = True) -> None:
        """Return when this server is the one that writes. Waits while another one lives, `lost` says when it is over. Without
        *wait*, raises StoreError then, which names that one."""
        while True:
            granted = await self._call("LeaseGrant", MESSAGES["LeaseGrantRequest"](TTL=LEASE_S))
            revision = await self.revision()
            if await self._campaign(granted.ID, name):
                break
            await self._call("LeaseRevoke", MESSAGES["LeaseRevokeRequest"](ID=granted.ID))
            if not wait and (held := await self.get(LEADER)):
                raise StoreError(f"the store is in use: {held.value.decode()} leads on it: stop all its servers first")
            await self._gone(LEADER, revision)
        self._lease = granted.ID
        self._keeper = asyncio.create_task(self._keep_alive(), name="etcd lease")
        await self._claim_fences()

    async def put_unfenced(self, key: str, value: bytes) -> None:
        """Write what this server alone says, leading or not: the same however often it is written, and not fenced."""
        await self._call("Put", MESSAGES["PutRequest"](key=self._key(key), value=value))

    async def _gone(self, key: str, after: int) -> None:
        """Return once *key* was deleted since revision *after*. Raises StoreError where nobody can say that any more."""

        async def heard() -> None:
            with contextlib.suppress(CompactedError):
                async for changes in self._watch(key, key + "\0", after):
                    if any(c.entry is None for c in changes):
                        return

        task = asyncio.create_task(heard())
        try:
            while not (await asyncio.wait({task}, timeout=SILENT_S))[0]:
                await self.revision()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _campaign(self, lease: int, name: str) -> bool:
        request = MESSAGES["TxnRequest"]()
        request.compare.add(key=self._key(LEADER), result=0, target=2, mod_revision=0)
        request.success.add().request_put.MergeFrom(
            MESSAGES["PutRequest"](key=self._key(LEADER), value=name.encode(), lease=lease)
        )
        request.failure.add().request_range.MergeFrom(MESSAGES["RangeRequest"](key=self._key(LEADER)))
        answer = await self._call("Txn", request)
        if answer.succeeded:
            return True
        held = answer.responses[0].response_range.kvs
        return bool(held) and held[0].lease == lease  # the answer to the first try was lost

    async def _claim_fences(self) -> None:
        """Write all marks: what an earlier leader still has on its way compares with the old ones, and fails."""
        while not self._slots.empty():
            self._slots.get_nowait()
        for number in range(MAX_INFLIGHT):
            name, nonce = f"{FENCE_PREFIX}{number}", os.urandom(16)
            while True:
                entry = await self.get(name)
                if entry and entry.value == nonce:
                    break
                await self._write((name, entry.modified if entry else 0), nonce, (), ())
            self._slots.put_nowait((name, entry.modified))

    async def _keep_alive(self) -> None:
        """Keep the lease; once it cannot be known to live, this server leads no more."""
        good_until = time.monotonic() + LEASE_S
        while time.monotonic() < good_until:
            began = time.monotonic()
            # all members at once: one that is silent must not cost the time in which another could have answered
            asked = [asyncio.create_task(self._keep_by(channel)) for channel in self._channels]
            lives = None
            for answer in asyncio.as_completed(asked):
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    if (lives := await answer) is not None:
                        break
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            if lives == 0:
                break
            if lives:
                good_until = began + lives - 1
                await asyncio.sleep(KEEP_S)
        self.lost.set()

    async def _keep_by(self, channel: grpc.aio.Channel) -> int | None:
        """The seconds that the lease lives on, as one member says; 0 where it is gone, None where that one does not know."""
        call = method(channel, "LeaseKeepAlive", stream=True)(timeout=KEEP_S, metadata=self._metadata)
        try:
            await call.write(MESSAGES["LeaseKeepAliveRequest"](ID=self._lease))
            answer = await call.read()
            return None if answer is grpc.aio.EOF else int(answer.TTL)
        finally:
            call.cancel()

    # --- reading -----------------------------------------------------------------------------------------------

    def _key(self, key: str) -> bytes:
        return (self._root + key).encode()

    def _range(self, start: str, end: str = "", **options: Any) -> Any:
        return MESSAGES["RangeRequest"](key=self._key(start), range_end=self._key(end) if end else b"", **options)

    async def revision(self) -> int:
        return int((await self._call("Range", self._range("\0", keys_only=True))).header.revision)

    async def get(self, key: str) -> Entry | None:
        answer = await self._call("Range", self._range(key))
        return self._entry(answer.kvs[0]) if answer.kvs else None

    async def scan(self, prefix: str, *, at: int = 0) -> Sequence[Entry]:
        out: list[Entry] = []
        start, end, limit = prefix or "\x01", _after(prefix), PAGE
        while True:
            try:
                answer = await self._call("Range", self._range(start, end, revision=at, limit=limit))
            except _StatusError as error:
                if error.code == grpc.StatusCode.OUT_OF_RANGE and "compacted" in str(error):
                    raise CompactedError(await self._oldest()) from None
                if error.code == grpc.StatusCode.RESOURCE_EXHAUSTED and limit > 1:
                    limit = max(1, limit // 16)  # some values are much larger than those before
                    continue
                raise
            out += map(self._entry, answer.kvs)
            if not answer.more:
                return out
            start, at = out[-1].key + "\0", at or int(answer.header.revision)
            # etcd counts the whole range for each page: the larger the pages may be, the better
            average = sum(len(kv.value) + len(kv.key) for kv in answer.kvs) // len(answer.kvs) + 100
            limit = max(PAGE, PAGE_BYTES // average)

    async def _oldest(self) -> int:
        """The first revision that is still known: a watch of an older one is told."""
        try:
            async for _ in self._watch("\0", "\x01", 0):
                break
        except CompactedError as error:
            return error.oldest
        return 1

    def _entry(self, kv: Any) -> Entry:
        key = kv.key.decode()[len(self._root) :]
        return Entry(key, kv.value, int(kv.create_revision), int(kv.mod_revision), int(kv.version))

    # --- writing -----------------------------------------------------------------------------------------------

    async def transact(self, compare: Sequence[Compare], then: Sequence[Op]) -> TransactionResult:
        validate_ops(then)
        if self.lost.is_set():
            raise FencedError("this server does not lead any more: another one does, or etcd was away for too long")
        if not then:  # nothing to do once: it may as well be asked twice
            return await self._holds(compare)
        mark = await self._slots.get()
        try:
            mark, outcome = await self._once(mark, compare, then)
            return outcome
        except StoreError:
            # whether it happened is not known, nor is the mark: the server that starts next takes them anew
            self.lost.set()
            raise
        finally:
            self._slots.put_nowait(mark)

    async def _holds(self, compare: Sequence[Compare]) -> TransactionResult:
        request = MESSAGES["TxnRequest"]()
        for one in compare:
            request.compare.add(key=self._key(one.key), result=0, target=2, mod_revision=one.modified)
        answer = await self._call("Txn", request)
        return TransactionResult(bool(answer.succeeded), int(answer.header.revision))

    async def _once(
        self, mark: tuple[str, int], compare: Sequence[Compare], then: Sequence[Op]
    ) -> tuple[tuple[str, int], TransactionResult]:
        nonce = os.urandom(16)
        succeeded, revision, held = await self._write(mark, nonce, compare, then)
        if succeeded:
            return (mark[0], revision), TransactionResult(True, revision)
        if held and held.value == nonce:  # an earlier try, whose answer was lost
            return (mark[0], held.modified), TransactionResult(True, held.modified)
        if held is None or held.modified != mark[1]:
            self.lost.set()
            raise FencedError("another server writes to this store")
        return mark, TransactionResult(False, revision)

    async def _write(
        self, mark: tuple[str, int], nonce: bytes, compare: Sequence[Compare], then: Sequence[Op]
    ) -> tuple[bool, int, Entry | None]:
        """Whether it happened, the revision then, and the mark as it is where it did not."""
        request = MESSAGES["TxnRequest"]()
        for key, modified in (mark, *((c.key, c.modified) for c in compare)):
            request.compare.add(key=self._key(key), result=0, target=2, mod_revision=modified)
        for op in (*then, Put(mark[0], nonce)):
            part = request.success.add()
            if isinstance(op, Put):
                part.request_put.MergeFrom(MESSAGES["PutRequest"](key=self._key(op.key), value=op.value))
            else:
                part.request_delete_range.MergeFrom(MESSAGES["DeleteRangeRequest"](key=self._key(op.key)))
        request.failure.add().request_range.MergeFrom(self._range(mark[0]))
        answer = await self._call("Txn", request)
        held = None
        if not answer.succeeded and answer.responses[0].response_range.kvs:
            held = self._entry(answer.responses[0].response_range.kvs[0])
        return bool(answer.succeeded), int(answer.header.revision), held

    async def compact(self, before: int) -> None:
        try:
            await self._call("Compact", MESSAGES["CompactionRequest"](revision=before))
        except _StatusError as error:
            if error.code != grpc.StatusCode.OUT_OF_RANGE:  # it is compacted already
                raise

    # --- watching ----------------------------------------------------------------------------------------------

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[KeyChange]]:
        async for changes in self._watch(prefix or "\x01", _after(prefix), after):
            yield changes

    async def _watch(self, start: str, end: str, after: int) -> AsyncIterator[Sequence[KeyChange]]:
        """Taken up again on another member, from the revision after the last, whenever a stream ends or falls silent."""
        member = self._first
        while True:
            channel = self._channels[member % len(self._channels)]
            with contextlib.suppress(StoreError):
                await self._log_in()  # a token does not live as long as a watch
            call = method(channel, "Watch", stream=True)(metadata=self._metadata)
            request = MESSAGES["WatchRequest"]()
            request.create_request.MergeFrom(
                MESSAGES["WatchCreateRequest"](
                    key=self._key(start),
                    range_end=self._key(end),
                    start_revision=after + 1,
                    progress_notify=True,
                )
            )
            try:
                async with asyncio.timeout(CALL_S):
                    await call.write(request)
                async with asyncio.timeout(CALL_S):
                    answer = await call.read()  # that it was created
                while answer is not grpc.aio.EOF:
                    if answer.compact_revision:
                        raise CompactedError(int(answer.compact_revision))
                    if answer.canceled:
                        break
                    for group in self._groups(answer.events):
                        yield group
                        after = group[0].revision
                    if not answer.events and not answer.created:  # progress
                        after = max(after, int(answer.header.revision))
                    answer = await self._next(call)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                pass
            finally:
                call.cancel()
            member += 1
            await asyncio.sleep(0.1)

    async def _next(self, call: Any) -> Any:
        """The next answer of a watch. Who was stopped is as silent as who has nothing to say; so it is asked."""
        read = asyncio.ensure_future(call.read())
        try:
            if not (await asyncio.wait({read}, timeout=SILENT_S))[0]:
                async with asyncio.timeout(CALL_S):
                    await call.write(PROGRESS)
            async with asyncio.timeout(CALL_S):
                return await asyncio.shield(read)
        finally:
            read.cancel()

    def _groups(self, events: Sequence[Any]) -> Sequence[Sequence[KeyChange]]:
        groups: dict[int, list[KeyChange]] = {}
        for event in events:
            key = event.kv.key.decode()[len(self._root) :]
            revision = int(event.kv.mod_revision)
            groups.setdefault(revision, []).append(KeyChange(key, revision, None if event.type == 1 else self._entry(event.kv)))
        return [sorted(group, key=lambda c: c.key) for group in groups.values()]

    # --- calling -----------------------------------------------------------------------------------------------

    async def _call(self, name: str, request: Any) -> Any:
        async def once(channel: grpc.aio.Channel) -> Any:
            return await method(channel, name)(request, timeout=CALL_S, metadata=self._metadata)

        for tries_left in range(8, -1, -1):
            try:
                return await self._try(once)
            except _StatusError as error:
                if not self.address.user or not any(word in str(error) for word in NO_TOKEN) or not tries_left:
                    raise
            await self._log_in()
        raise AssertionError

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("hasleader", "true"), *((("token", self._token),) if self._token else ()))

    async def _log_in(self) -> None:
        """Get a token, where there is a user. Raises StoreError; a store that asks for none is fine."""
        if not self.address.user:
            return
        request = MESSAGES["AuthenticateRequest"](name=self.address.user, password=self.address.password)

        async def once(channel: grpc.aio.Channel) -> Any:
            return await method(channel, "Authenticate")(request, timeout=CALL_S)

        try:
            self._token = str((await self._try(once)).token)
        except _StatusError as error:
            if "not enabled" not in str(error):
                raise

    # --- readers -----------------------------------------------------------------------------------------------

    async def grant_read(self, reader: str, prefix: str) -> EtcdCredentials:
        if not self._token:
            raise StoreError(
                "etcd asks nobody who he is, so a node could read what is others': give it users (`etcdctl user add root`, "
                "`etcdctl auth enable`), and --store etcd://root:PASSWORD@…"
            )
        name, password = f"{self.address.prefix}-{reader}", os.urandom(24).hex()
        begin, end = self._key(prefix), self._key(_after(prefix))
        await self._unless("already exists", "RoleAdd", MESSAGES["AuthRoleAddRequest"](name=name))
        grant = MESSAGES["AuthRoleGrantPermissionRequest"](name=name)
        grant.perm.permType, grant.perm.key, grant.perm.range_end = 0, begin, end  # READ
        await self._call("RoleGrantPermission", grant)
        await self._unless("already exists", "UserAdd", MESSAGES["AuthUserAddRequest"](name=name, password=password))
        await self._call("UserChangePassword", MESSAGES["AuthUserChangePasswordRequest"](name=name, password=password))
        await self._call("UserGrantRole", MESSAGES["AuthUserGrantRoleRequest"](user=name, role=name))
        ca = Path(self.address.ca).read_text() if self.address.ca else ""
        return EtcdCredentials(
            members=self.address.members, prefix=begin.decode(), user=name, password=password, ca=ca, tls=bool(ca)
        )

    async def revoke_read(self, reader: str) -> None:
        name = f"{self.address.prefix}-{reader}"
        await self._unless("not found", "UserDelete", MESSAGES["AuthUserDeleteRequest"](name=name))
        await self._unless("not found", "RoleDelete", MESSAGES["AuthRoleDeleteRequest"](role=name))

    async def _unless(self, words: str, name: str, request: Any) -> None:
        try:
            await self._call(name, request)
        except _StatusError as error:
            if words not in str(error):
                raise

    async def _try(self, once: Callable[[grpc.aio.Channel], Coroutine[Any, Any, T]]) -> T:
        """*once* on one member after the other, until one answers. Raises StoreError after six seconds, at once where the
        answer is no."""
        until = time.monotonic() + GIVE_UP_S
        while True:
            member = self._first % len(self._channels)
            try:
                return await once(self._channels[member])
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise _StatusError(error.code(), _words(error, self.address)) from None
                if time.monotonic() >= until:
                    raise StoreError(
                        f"etcd at {self.address.members[member]} does not answer: {_words(error, self.address)}"
                    ) from None
            self._first = member + 1
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._keeper:
            self._keeper.cancel()
            with contextlib.suppress(StoreError):
                await self._call("LeaseRevoke", MESSAGES["LeaseRevokeRequest"](ID=self._lease))
        for channel in self._channels:
            await channel.close(None)


class _StatusError(StoreError):
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def _words(error: grpc.aio.AioRpcError, address: Address) -> str:
    """What to tell the user."""
    text = error.details() or str(error.code())
    if "space exceeded" in text:
        return "its space alarm is raised, and nothing can be written: compact and defragment it, then `etcdctl alarm disarm`"
    if "CERTIFICATE" in text.upper() or "SSL" in text or "handshake" in text.lower():
        return f"TLS with it fails ({text}): see --ca {address.ca or '(not given)'}, --cert and --key"
    if "leader" in text or "quorum" in text:
        return f"it has no quorum ({text})"
    return text


def _after(prefix: str) -> str:
    """The first key behind all that begin with *prefix*."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"


def _is_here(member: str) -> bool:
    """Whether the address of HOST:PORT is one of this host's own."""
    host = member.rpartition(":")[0].strip("[]")
    with contextlib.suppress(OSError, UnicodeError):
        for family, kind, _, _, place in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
                probe.bind(place)
                return True
    return False
