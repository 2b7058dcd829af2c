"""A node that reads its manifest from etcd itself, whichever server leads and whether that reaches the node or not.

The node's credentials can read its own prefix only. Below it are `head`, the manifest without its parts, and each entry as
`<part>/<key>`. A manifest is written in several transactions, the head last, with a digest of all entries: while the digest
does not match, entries are still being written. etcd is reached over its JSON gateway, so that an agent needs no gRPC. Source:
etcd API reference, "gRPC gateway"; role-based access control guide."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from agent import files
from agent.contract.manifest import ENTRY_TYPES, EtcdCredentials, Manifest, ManifestHeader, digest_of
from agent.errors import AgentError, ConflictError

CALL_S, WATCH_TIMEOUT_S, RETRY_DELAY_S, APPLY_TIMEOUT_S = 5.0, 20.0, 0.5, 20.0
log = logging.getLogger(__name__)


def assembled(entries: Mapping[str, bytes]) -> tuple[str, Manifest] | None:
    """The manifest that *entries* make up (the head is one of them), with its digest; None while some are still being
    written."""
    if "head" not in entries:
        return None
    head = msgspec.json.decode(entries["head"], type=ManifestHeader)
    rest = {k: v for k, v in entries.items() if k != "head"}
    if digest_of(rest) != head.digest:
        return None
    parts = {
        part: tuple(msgspec.json.decode(v, type=ENTRY_TYPES[part]) for k, v in sorted(rest.items()) if k.startswith(f"{part}/"))
        for part in ENTRY_TYPES
    }
    return head.digest, msgspec.structs.replace(head.manifest, **parts)


class EtcdManifestWatcher:
    """Watches the node's own prefix as long as it has one, and calls *take* with each complete manifest."""

    def __init__(self, root: Path, take: Callable[[Manifest], Awaitable[None]]) -> None:
        self._file = root / "etcd.json"
        self._take = take
        self._task: asyncio.Task[None] | None = None
        self._entries: dict[str, bytes] = {}
        self._applied = ""
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Begin, if this agent or an earlier one got credentials."""
        with contextlib.suppress(FileNotFoundError):
            access = msgspec.json.decode(self._file.read_bytes(), type=EtcdCredentials)
            self._task = asyncio.create_task(self._follow(access), name="manifest watcher")

    async def enable(self, access: EtcdCredentials) -> None:
        """Save *access* and follow the manifest with it."""
        await self.stop()
        files.write_atomically(self._file, msgspec.json.encode(access), 0o600)
        self.start()

    async def disable(self) -> None:
        """Stop, and forget the credentials."""
        await self.stop()
        self._file.unlink(missing_ok=True)
        self._applied = ""

    async def stop(self) -> None:
        """Stop following; the credentials stay."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def wait_applied(self, digest: str) -> None:
        """Return when the manifest with *digest* was taken. Raises ConflictError if it does not come."""

        async def came() -> None:
            while self._applied != digest:
                self._changed.clear()
                await self._changed.wait()

        try:
            async with asyncio.timeout(APPLY_TIMEOUT_S):
                await came()
        except TimeoutError:
            raise ConflictError(f"this node has not read its manifest from etcd within {APPLY_TIMEOUT_S:g} s") from None

    async def _follow(self, access: EtcdCredentials) -> None:
        """From member to member, for ever."""
        number, quiet = 0, False
        while True:
            member = access.members[number % len(access.members)]
            try:
                async with _Gateway(access, member) as gateway:
                    await self._read(gateway, access.prefix)
                quiet = False
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, AgentError) as error:
                if not quiet:
                    log.warning("the manifest cannot be read from etcd at %s: %s", member, error or type(error).__name__)
                quiet = True
            number += 1
            await asyncio.sleep(RETRY_DELAY_S)

    async def _read(self, gateway: _Gateway, prefix: str) -> None:
        """Read all entries, then follow changes, until the member ends the stream or is silent for too long."""
        self._entries, revision = await gateway.range(prefix)
        await self._offer()
        async for changes in gateway.watch(prefix, revision + 1):
            for key, value in changes:
                if value is None:
                    self._entries.pop(key, None)
                else:
                    self._entries[key] = value
            if any(key == "head" for key, _ in changes):
                await self._offer()

    async def _offer(self) -> None:
        found = assembled(self._entries)
        if found is None or found[0] == self._applied:
            return
        await self._take(found[1])
        self._applied = found[0]
        self._changed.set()


class _Gateway:
    """One member's JSON gateway, with a token of its own."""

    def __init__(self, access: EtcdCredentials, member: str) -> None:
        self._access = access
        self._url = f"{'https' if access.tls else 'http'}://{member}/v3"
        context = ssl.create_default_context(cadata=access.ca or None) if access.tls else None
        connector = aiohttp.TCPConnector(ssl=context) if context else aiohttp.TCPConnector()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def __aenter__(self) -> _Gateway:
        try:
            answer = await self._call("auth/authenticate", {"name": self._access.user, "password": self._access.password})
        except BaseException:
            await self._session.close()
            raise
        self._session.headers["Authorization"] = answer["token"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def _call(self, path: str, body: object) -> Any:
        async with asyncio.timeout(CALL_S), self._session.post(f"{self._url}/{path}", json=body) as reply:
            answer = await reply.json(content_type=None)
            if reply.status != 200:
                raise AgentError(str(answer.get("error", reply.status)))
            return answer

    async def range(self, prefix: str) -> tuple[dict[str, bytes], int]:
        """Entries by their key below *prefix*, and the store's revision."""
        answer = await self._call("kv/range", _span(prefix))
        entries = {_text(kv["key"])[len(prefix) :]: base64.b64decode(kv.get("value", "")) for kv in answer.get("kvs", ())}
        return entries, int(answer["header"]["revision"])

    async def watch(self, prefix: str, revision: int) -> Any:
        """Each later change, as lists of (key, value or None)."""
        body = {"create_request": {**_span(prefix), "start_revision": str(revision), "progress_notify": True}}
        async with self._session.post(f"{self._url}/watch", json=body) as reply:
            while True:
                # a stopped member is as silent as one without changes: all is read again then
                async with asyncio.timeout(WATCH_TIMEOUT_S):
                    line = await reply.content.readline()
                answer = json.loads(line or b"{}").get("result")
                if not answer or answer.get("canceled") or answer.get("compact_revision"):
                    return
                if events := answer.get("events"):
                    yield [
                        (
                            _text(e["kv"]["key"])[len(prefix) :],
                            None if e.get("type") == "DELETE" else base64.b64decode(e["kv"].get("value", "")),
                        )
                        for e in events
                    ]


def _span(prefix: str) -> dict[str, str]:
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return {"key": base64.b64encode(prefix.encode()).decode(), "range_end": base64.b64encode(end.encode()).decode()}


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()
