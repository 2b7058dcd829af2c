"""The lease of the server that leads: one server at a time holds it, and knows when it may no longer rely on it."""

from __future__ import annotations

import asyncio
import contextlib
import time

import grpc.aio

from orchestrator.store.etcd import rpc
from orchestrator.store.etcd.client import Client
from orchestrator.store.etcd.keyspace import Keyspace
from orchestrator.store.etcd.watch import Watcher
from orchestrator.store.interface import StoreError

LEADER = "\0leader"
LEASE_S, RENEW_S, ANSWER_S = 4, 0.5, 1.0
"""The time to live of the lease, how often it is renewed, and how long a member may take to answer that."""
SAFETY_S = 0.5
"""How long before its end a lease is not relied on any more: what was begun then is done before another server leads."""
LATE_S = 2
"""A lease that was not renewed for so long is one whose server is taken to be gone."""


class Leadership:
    """*lost* is set when this server does not lead any more."""

    def __init__(self, client: Client, keyspace: Keyspace, watcher: Watcher) -> None:
        self.lost = asyncio.Event()
        self._client = client
        self._keyspace = keyspace
        self._watcher = watcher
        self._lease = 0
        self._keeper: asyncio.Task[None] | None = None

    async def acquire(self, name: str, *, wait: bool = True) -> None:
        """Return when the server called *name* leads; waits as long as another server does. Raises StoreError; without *wait*
        also if another server leads."""
        while True:
            lease = int((await self._client.call(rpc.LEASE_GRANT, rpc.lease_grant_request(LEASE_S))).ID)
            found = await self._client.call(rpc.RANGE, self._keyspace.range(LEADER, keys_only=True))
            if await self._campaign(lease, name):
                break
            await self._client.call(rpc.LEASE_REVOKE, rpc.lease_revoke_request(lease))
            if not wait and (leader := await self._leader()):
                raise StoreError(f"the store is in use: {leader} leads on it: stop all its servers first")
            await self._watcher.deleted(LEADER, int(found.header.revision))
        self._lease = lease
        self._keeper = asyncio.create_task(self._keep_alive(), name="etcd lease")

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
        """The time to live in seconds, as the first member to answer says; 0 if the lease is gone, None if no member answers.

        All members are asked at once: a silent one must not cost the time in which another could have answered."""
        asked = [asyncio.create_task(self._renew_at(channel)) for channel in self._client.channels]
        try:
            for answer in asyncio.as_completed(asked):
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    if (ttl_s := await answer) is not None:
                        return ttl_s
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
