"""The client of one node's agent, over a unix socket: the agent's own, or one that is forwarded over SSH."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from agent.contract.manifest import Delta, Manifest
from agent.contract.status import TaskStatus
from orchestrator.errors import RefusedError, UnreachableError


class AgentClient:
    """Delivers manifests, streams statuses, and calls the agent's Engine API."""

    def __init__(self, node: str, socket: Path) -> None:
        self.node = node
        self.socket = socket
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        """The HTTP session, opened at the first call."""
        if self._session is None:
            connector = aiohttp.UnixConnector(path=str(self.socket), limit=0)
            timeout = aiohttp.ClientTimeout(total=None, connect=10)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session

    async def deliver(self, manifest: Manifest) -> None:
        """Send the whole manifest; when this returns, the agent has it on disk. Raises RefusedError, UnreachableError."""
        await self.call("PUT", "/pystack/manifest", data=msgspec.json.encode(manifest))

    async def change(self, delta: Delta) -> None:
        """Send a change of the manifest. Raises RefusedError with status 409 if the node has another manifest than its base,
        UnreachableError."""
        await self.call("PATCH", "/pystack/manifest", data=msgspec.json.encode(delta))

    async def statuses(self) -> AsyncIterator[TaskStatus | None]:
        """The status of every task, then None, then each change; None also when the node info has changed.

        Raises UnreachableError when the connection is lost."""
        try:
            async with self.session().get("http://node/pystack/status/stream") as reply:
                async for line in reply.content:
                    yield None if line == b"{}\n" else msgspec.json.decode(line, type=TaskStatus)
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"node {self.node} does not answer: {error}") from error

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """Call the Engine API; returns the JSON of the answer, or None. Raises RefusedError with the agent's message,
        UnreachableError."""
        try:
            async with self.session().request(method, f"http://node{path}", **options) as reply:
                raw = await reply.read()
                if reply.status >= 400:
                    try:
                        message = str(json.loads(raw)["message"])
                    except (ValueError, KeyError):
                        message = raw.decode(errors="replace")
                    raise RefusedError(message, reply.status)
                return json.loads(raw) if raw and "json" in reply.content_type else None
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise UnreachableError(f"node {self.node} does not answer: {error}") from error

    async def stream(self, method: str, path: str, **options: Any) -> AsyncIterator[dict[str, Any]]:
        """Call the Engine API; yields the JSON object of each line of the answer. Raises RefusedError if one is an error."""
        async with self.session().request(method, f"http://node{path}", **options) as reply:
            if reply.status >= 400:
                raise RefusedError(str((await reply.json(content_type=None)).get("message")), reply.status)
            async for line in reply.content:
                event = json.loads(line)
                if "error" in event:
                    raise RefusedError(str(event["error"]))
                yield event

    async def chunks(self, path: str) -> AsyncIterator[bytes]:
        """The body of a GET, in chunks as they arrive. Raises RefusedError, UnreachableError."""
        try:
            async with self.session().get(f"http://node{path}") as reply:
                if reply.status >= 400:
                    raise RefusedError((await reply.read()).decode(errors="replace"), reply.status)
                async for chunk in reply.content.iter_any():
                    yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"node {self.node} does not answer: {error}") from error

    async def tail(self, container: str, lines: int) -> list[str]:
        """The last *lines* of a container's output, of both streams; none if the node does not answer."""
        path = f"http://node/containers/{container}/logs?stdout=1&stderr=1&tail={lines}"
        try:
            async with self.session().get(path) as reply:
                raw = await reply.read()
                if reply.status >= 400:
                    return []
        except (aiohttp.ClientError, OSError):
            return []
        out, at = b"", 0
        if "raw" in reply.content_type:
            out = raw
        while out != raw and at + 8 <= len(raw):
            length = int.from_bytes(raw[at + 4 : at + 8], "big")
            out += raw[at + 8 : at + 8 + length]
            at += 8 + length
        return out.decode(errors="replace").splitlines()[-lines:]

    async def close(self) -> None:
        """Close the session."""
        if self._session:
            await self._session.close()
            await asyncio.sleep(0)
