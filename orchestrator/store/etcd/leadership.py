"""The lease of the server that leads: one server at a time holds it, and knows when it may no longer rely on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc.aio

from orchestrator.store.etcd import rpc
from orchestrator.store.etcd.client import Client
from orchestrator.store.etcd.keyspace import Keyspace
from orchestrator.store.etcd.renewal import RenewalAge
from orchestrator.store.etcd.watch import Watcher
from orchestrator.store.interface import StoreError

T = TypeVar("T")
Silence = Callable[[str], float]
"""For how many seconds the process of the server of that name has given no sign of life: 0 where nothing is known of it."""
LEADER = "\0leader"
LEASE_S, RENEW_S, ANSWER_S = 4, 0.5, 1.0
"""The time to live of the lease, how often it is renewed, and how long a member may take to answer that."""
SAFETY_S = 0.5
"""How long before its end a lease is not relied on any more: what was begun then is done before another server leads."""
LATE_S = 2
"""A lease that was not renewed for so long is one whose server is taken to be gone."""
SUSPECT_S, SILENT_S = 1.0, 1.6
"""How long the leader's process is silent before its lease is looked at, and before it is taken to be gone."""
UNRENEWED_S = 0.5
"""A process that is silent and has not renewed its lease for so long leads no more: nobody waits for the end of that lease."""
LOOK_S, LOOK_ANSWER_S = 0.1, 0.4
"""The pause between two looks, and how long a member may take to answer one."""
log = logging.getLogger(__name__)


def knows_nothing(name: str) -> float:
    """The Silence of who follows no server."""
    del name
    return 0.0


class Leadership:
    """*lost* is set when this server does not lead any more."""

    def __init__(self, client: Client, keyspace: Keyspace, watcher: Watcher) -> None:
        self.lost = asyncio.Event()
        self._client = client
        self._keyspace = keyspace
        self._watcher = watcher
        self._lease = 0
        self._keeper: asyncio.Task[None] | None = None

    async def acquire(self, name: str, *, wait: bool = True, silence: Silence = knows_nothing) -> None:
        """Return when the server called *name* leads; waits as long as another server does, by its lease, or by that and
        *silence*. Raises StoreError; without *wait* also if another server leads."""
        while True:
            lease = int((await self._client.call(rpc.LEASE_GRANT, rpc.lease_grant_request(LEASE_S))).ID)
            found = await self._client.call(rpc.RANGE, self._keyspace.range(LEADER))
            if await self._campaign(lease, name):
                break
            await self._client.call(rpc.LEASE_REVOKE, rpc.lease_revoke_request(lease))
            if not wait and (leader := await self._leader()):
                raise StoreError(f"the store is in use: {leader} leads on it: stop all its servers first")
            if found.kvs:  # else another server was quicker just now: see which
                await self._until_free(found.kvs[0], int(found.header.revision), silence)
        self._lease = lease
        self._keeper = asyncio.create_task(self._keep_alive(), name="etcd lease")

    async def _until_free(self, leader: rpc.KeyValue, revision: int, silence: Silence) -> None:
        """Return when the key *leader* has been deleted since *revision*. Deletes it where its server is gone: silent, and its
        lease not renewed. That a server was only slow does no harm: its writes are fenced. Raises StoreError."""
        deleted = asyncio.create_task(self._watcher.deleted(LEADER, revision))
        name, lease, age = bytes(leader.value).decode(), int(leader.lease), RenewalAge()
        try:
            while not (await asyncio.wait({deleted}, timeout=LOOK_S))[0]:
                late = silence(name) >= SUSPECT_S and await self._unrenewed_s(lease, age) >= UNRENEWED_S
                if late and silence(name) >= SILENT_S:  # asked again: it may have spoken meanwhile
                    log.warning("server %s is silent and does not renew its lease: nobody waits for it any more", name)
                    await self._client.call(rpc.LEASE_REVOKE, rpc.lease_revoke_request(lease))
                    return
            await deleted
        finally:
            deleted.cancel()
            await asyncio.gather(deleted, return_exceptions=True)

    async def _unrenewed_s(self, lease: int, age: RenewalAge) -> float:
        """For how many seconds *lease* was not renewed, as far as *age* can tell; 0 if no member answers."""

        async def ask(channel: grpc.aio.Channel) -> rpc.LeaseAnswer:
            request = rpc.lease_time_to_live_request(lease)
            call = rpc.LEASE_TIME_TO_LIVE.unary(channel)(request, timeout=LOOK_ANSWER_S, metadata=self._client.metadata)
            answer: rpc.LeaseAnswer = await call
            return answer

        asked = time.monotonic()
        answer = await self._first_answer(ask)
        return age.seen(asked, time.monotonic(), answer.grantedTTL, answer.TTL) if answer else 0.0

    async def _leader(self) -> str:
        """The name of the server whose lease it is to lead, "" if there is none. Raises StoreError."""
        answer = await self._client.call(rpc.RANGE, self._keyspace.range(LEADER))
        return bytes(answer.kvs[0].value).decode() if answer.kvs else ""

    async def living_leader(self) -> str:
        """The name of the server that leads, "" if none does, or it has not renewed its lease lately. Raises StoreError."""
        answer = await self._client.call(rpc.RANGE, self._keyspace.range(LEADER))
        if not answer.kvs:
            return ""
        lease = await self._client.call(rpc.LEASE_TIME_TO_LIVE, rpc.lease_time_to_live_request(answer.kvs[0].lease))
        return bytes(answer.kvs[0].value).decode() if lease.TTL > LEASE_S - LATE_S else ""

    async def resign_as(self, name: str) -> None:
        """End the lease of an earlier process of the server *name*, which is gone: nobody needs to wait for it. Raises
        StoreError."""
        answer = await self._client.call(rpc.RANGE, self._keyspace.range(LEADER))
        if answer.kvs and bytes(answer.kvs[0].value).decode() == name:
            await self._client.call(rpc.LEASE_REVOKE, rpc.lease_revoke_request(answer.kvs[0].lease))

    async def _campaign(self, lease: int, name: str) -> bool:
        """Write the leader's key if it does not exist. Returns whether it is ours."""
        key = self._keyspace.encode(LEADER)
        request = rpc.txn_request(
            [(key, 0)], [rpc.put_request(key, name.encode(), lease=lease)], [self._keyspace.range(LEADER)]
        )
        answer = await self._client.call(rpc.TXN, request)
        if answer.succeeded:
            return True
        held = answer.responses[0].response_range.kvs
        return bool(held) and held[0].lease == lease  # the answer to the first try was lost

    async def _keep_alive(self) -> None:
        """Renew the lease; set *lost* as soon as it is not certain that the lease still lives."""
        good_until = time.monotonic() + LEASE_S
        while time.monotonic() < good_until:
            began = time.monotonic()
            ttl_s = await self._renew()
            if ttl_s == 0:
                break
            if ttl_s:
                good_until = began + ttl_s - SAFETY_S
                await asyncio.sleep(RENEW_S)
        self.lost.set()

    async def _renew(self) -> int | None:
        """The time to live in seconds, as the first member says that answers; 0 if the lease is gone, None if none does."""
        return await self._first_answer(self._renew_at)

    async def _first_answer(self, ask: Callable[[grpc.aio.Channel], Awaitable[T | None]]) -> T | None:
        """What the first member says that answers, None if none does. All are asked at once: a silent one must not cost the
        time in which another could have answered."""
        asked = [asyncio.ensure_future(ask(channel)) for channel in self._client.channels]
        try:
            for coming in asyncio.as_completed(asked):
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    if (answer := await coming) is not None:
                        return answer
            return None
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _renew_at(self, channel: grpc.aio.Channel) -> int | None:
        """The time to live that one member says; None if that member ends the stream."""
        stream = rpc.LEASE_KEEP_ALIVE.stream(channel)(timeout=ANSWER_S, metadata=self._client.metadata)
        try:
            await stream.write(rpc.lease_keep_alive_request(self._lease))
            answer = await stream.read()
            return None if answer is grpc.aio.EOF else int(answer.TTL)
        finally:
            stream.cancel()

    def stop_renewing(self) -> None:
        """Let the lease end by itself, as that of a server that hangs does."""
        if self._keeper:
            self._keeper.cancel()

    async def release(self) -> None:
        """Stop leading: the next server can lead at once."""
        if self._keeper:
            self._keeper.cancel()
            with contextlib.suppress(StoreError):
                await self._client.call(rpc.LEASE_REVOKE, rpc.lease_revoke_request(self._lease))
