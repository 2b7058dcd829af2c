"""Watches that survive the loss of members: each later revision once and in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio

from agent.contract.backoff import Backoff
from orchestrator.store.etcd import rpc
from orchestrator.store.etcd.client import CALL_S, Client
from orchestrator.store.etcd.keyspace import Keyspace
from orchestrator.store.interface import CompactedError, KeyChange, StoreError

SILENT_S = 5.0
"""How long a watch may be silent before the member is asked for its progress."""


class Watcher:
    """Watches of the keys of *keyspace*."""

    def __init__(self, client: Client, keyspace: Keyspace) -> None:
        self._client = client
        self._keyspace = keyspace

    async def watch(self, start: str, end: str, after: int) -> AsyncIterator[Sequence[KeyChange]]:
        """The changes of the keys from *start* up to *end* after revision *after*, one group a revision. Never ends: whenever a
        stream ends or falls silent, the next member continues. Raises CompactedError."""
        member = self._client.preferred
        pauses = Backoff(0.1, 1.0)
        while True:
            channel = self._client.channels[member % len(self._client.channels)]
            with contextlib.suppress(StoreError):
                await self._client.log_in()  # a token does not live as long as a watch
            stream = rpc.WATCH.stream(channel)(metadata=self._client.metadata)
            try:
                async for answer in self._answers(stream, start, end, after):
                    pauses.reset()
                    for group in self._groups(answer.events):
                        yield group
                        after = group[0].revision
                    if not answer.events and not answer.created:  # progress
                        after = max(after, int(answer.header.revision))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                pass
            finally:
                stream.cancel()
            member += 1
            await asyncio.sleep(next(pauses))

    async def deleted(self, key: str, after: int) -> None:
        """Return when *key* has been deleted since revision *after*, or cannot be watched from there.

        Raises StoreError if etcd does not answer any more."""

        async def wait() -> None:
            with contextlib.suppress(CompactedError):
                async for changes in self.watch(key, key + "\0", after):
                    if any(c.entry is None for c in changes):
                        return

        task = asyncio.create_task(wait())
        try:
            while not (await asyncio.wait({task}, timeout=SILENT_S))[0]:
                await self._client.call(rpc.RANGE, self._keyspace.range(key, keys_only=True))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _answers(self, stream: Any, start: str, end: str, after: int) -> AsyncIterator[rpc.WatchAnswer]:
        """The answers of one member, until it ends the watch. Raises CompactedError, TimeoutError, AioRpcError."""
        encode = self._keyspace.encode
        request = rpc.watch_request(encode(start), encode(end), start_revision=after + 1)
        async with asyncio.timeout(CALL_S):
            await stream.write(request)
        async with asyncio.timeout(CALL_S):
            answer = await stream.read()  # that the watch was created
        while answer is not grpc.aio.EOF:
            if answer.compact_revision:
                raise CompactedError(int(answer.compact_revision))
            if answer.canceled:
                return
            yield answer
            answer = await _next(stream)

    def _groups(self, events: Sequence[rpc.Event]) -> Sequence[Sequence[KeyChange]]:
        """*events* by revision, and by key within one."""
        groups: dict[int, list[KeyChange]] = {}
        for event in events:
            revision = int(event.kv.mod_revision)
            entry = None if event.type == rpc.DELETED else self._keyspace.entry(event.kv)
            groups.setdefault(revision, []).append(KeyChange(self._keyspace.decode(event.kv.key), revision, entry))
        return [sorted(group, key=lambda c: c.key) for group in groups.values()]


async def _next(stream: Any) -> Any:
    """The next answer. A member that is stopped is as silent as one without news, so a silent one is asked for its progress.

    Raises TimeoutError if it does not answer that."""
    read = asyncio.ensure_future(stream.read())
    try:
        if not (await asyncio.wait({read}, timeout=SILENT_S))[0]:
            async with asyncio.timeout(CALL_S):
                await stream.write(rpc.PROGRESS)
        async with asyncio.timeout(CALL_S):
            return await asyncio.shield(read)
    finally:
        read.cancel()
