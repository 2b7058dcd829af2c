"""An AgentClient speaks to one node's agent over its unix socket: here, or forwarded from a host far away."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from agent.contract.container import Hook
from agent.contract.frames import FrameDecoder, FrameError
from agent.contract.manifest import Delta, Manifest
from agent.contract.network import HEARTBEAT
from agent.contract.status import TaskStatus
from orchestrator.errors import RefusedError, SilentNodeError, UnreachableError

HEARTBEAT_S = 2.0
"""How often an agent is to say something at least."""
SILENT_S = 6.0
"""After how long without a word an agent is taken to hang, or to be out of reach."""
BEAT = b'{"beat":'
STALL_S = 1.0
"""How long this process, if it was stopped itself, gives the others to answer."""


class AgentClient:
    """Delivers manifests, streams statuses, and asks the agent's Engine API. An agent whose stream of statuses is silent for
    SILENT_S ends all that waits for it: a call may take as long as its work takes, and no longer than the agent lives."""

    def __init__(self, node: str, socket: Path) -> None:
        self.node = node
        self.socket = socket
        self.silent = ""
        """Why the agent is taken to be lost, "" while it answers, or was not asked yet."""
        self.last_line_at = 0.0
        """When its stream of statuses last said something, by the loop's clock in seconds; 0: never yet."""
        self._session: aiohttp.ClientSession | None = None
        self._answering: asyncio.Task[None] | None = None
        self.on_lease_ended: Callable[[], None] = lambda: None
        """Called when the node got nothing for longer than its lease, though its lines came: a manifest renews that."""
        self._waits: set[asyncio.Timeout] = set()

    def session(self) -> aiohttp.ClientSession:
        """The HTTP session, made when it is first asked for."""
        if self._session is None:
            connector = aiohttp.UnixConnector(path=str(self.socket), limit=0)
            timeout = aiohttp.ClientTimeout(total=None, connect=10)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session

    async def deliver(self, manifest: Manifest) -> None:
        """Hand over the whole manifest; the agent has kept it on disk when this returns."""
        await self.call("PUT", "/pystack/manifest", data=msgspec.json.encode(manifest))

    async def change(self, delta: Delta) -> None:
        """Hand over what changed. Raises RefusedError with status 409 where the node has another manifest than its base."""
        await self.call("PATCH", "/pystack/manifest", data=msgspec.json.encode(delta))

    async def statuses(self) -> AsyncIterator[TaskStatus | None]:
        """Every task's status, then None, then each change, and None when the node itself changed.

        Raises UnreachableError when the node is lost."""
        asked = {"heartbeat": str(HEARTBEAT_S), "beats": "1"}
        try:
            async with asyncio.timeout(SILENT_S):
                reply = await self.session().get("http://node/pystack/status/stream", params=asked)
            async with reply:
                patience = SILENT_S if HEARTBEAT in reply.headers else None  # an agent of an older version has none
                while line := await self._next_line(reply, patience):
                    self.silent, self.last_line_at = "", asyncio.get_running_loop().time()
                    if line.startswith(BEAT):
                        self._answering = asyncio.create_task(self._answer(int(line[len(BEAT) :].strip(b"}\n"))))
                    elif line != b"\n":
                        yield None if line == b"{}\n" else msgspec.json.decode(line, type=TaskStatus)
        except TimeoutError:
            self.give_up(f"its agent has sent nothing for {SILENT_S:g} s")
            raise SilentNodeError(self.node, self.silent) from None
        except (aiohttp.ClientError, OSError) as error:
            raise SilentNodeError(self.node, error) from error

    async def _answer(self, beat: int) -> None:
        """Acknowledge the node's *beat*. One without an acknowledgement stops what must not run twice."""
        with contextlib.suppress(RefusedError, UnreachableError):
            found = await self.call("POST", f"/pystack/heard/{beat}")
            if found and found.get("ended"):  # an agent of an older version says nothing
                self.on_lease_ended()

    async def _next_line(self, reply: aiohttp.ClientResponse, within_s: float | None) -> bytes:
        """Raises TimeoutError where none comes in time, of which this process was awake."""
        for patience in (within_s, STALL_S):
            try:
                async with asyncio.timeout(patience):
                    return await reply.content.readline()
            except TimeoutError:
                continue
        raise TimeoutError

    def give_up(self, why: str) -> None:
        """The agent is silent: end all requests that wait for it."""
        self.silent = why
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.reschedule(now)

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Do what is within for as long as the agent is alive. Raises UnreachableError where it is silent, or falls so."""
        if self.silent:
            raise SilentNodeError(self.node, self.silent)
        try:
            async with asyncio.timeout(None) as wait:
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            if not self.silent:
                raise
            raise SilentNodeError(self.node, self.silent) from None

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """One Engine API call; its JSON, or None. Raises RefusedError with the agent's words, UnreachableError."""
        try:
            async with self.alive(), self.session().request(method, f"http://node{path}", **options) as reply:
                raw = await reply.read()
                if reply.status >= 400:
                    try:
                        message = str(json.loads(raw)["message"])
                    except (ValueError, KeyError):
                        message = raw.decode(errors="replace")
                    raise RefusedError(message, reply.status)
                return json.loads(raw) if raw and "json" in reply.content_type else None
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise SilentNodeError(self.node, error) from error

    async def _part(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """The result of *read*; the caller may then take its time."""
        async with self.alive():
            return await read()

    async def stream(self, method: str, path: str, **options: Any) -> AsyncIterator[dict[str, Any]]:
        """An Engine API call that answers with one JSON object a line. Raises RefusedError where one of them is an error."""
        async with self.alive():
            reply = await self.session().request(method, f"http://node{path}", **options)
        async with reply:
            if reply.status >= 400:
                raise RefusedError(str((await reply.json(content_type=None)).get("message")), reply.status)
            while line := await self._part(reply.content.readline):
                event = json.loads(line)
                if "error" in event:
                    raise RefusedError(str(event["error"]))
                yield event

    async def chunks(self, path: str) -> AsyncIterator[bytes]:
        """The body of a GET, as it comes. Raises RefusedError, UnreachableError."""
        try:
            async with self.alive():
                reply = await self.session().get(f"http://node{path}")
            async with reply:
                if reply.status >= 400:
                    raise RefusedError((await reply.read()).decode(errors="replace"), reply.status)
                while chunk := await self._part(reply.content.readany):
                    yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise SilentNodeError(self.node, error) from error

    async def tail(self, container: str, lines: int) -> list[str]:
        """The last lines of a container's output, without what tells the streams apart."""
        path = f"http://node/containers/{container}/logs?stdout=1&stderr=1&tail={lines}"
        try:
            async with self.alive(), self.session().get(path) as reply:
                raw = await reply.read()
                if reply.status >= 400:
                    return []
        except (aiohttp.ClientError, OSError, UnreachableError):
            return []
        return (raw if "raw" in reply.content_type else _payload(raw)).decode(errors="replace").splitlines()[-lines:]

    async def execute(self, container: str, hook: Hook) -> tuple[int, list[str]]:
        """Run *hook* in a running container. Returns its exit code, and what it said. Raises RefusedError, UnreachableError."""
        made = await self.call(
            "POST",
            f"/containers/{container}/exec",
            json={
                "Cmd": list(hook.command),
                "AttachStdout": True,
                "AttachStderr": True,
                "User": hook.user,
                "Privileged": hook.privileged,
                "WorkingDir": hook.working_dir,
                "Env": [f"{name}={value}" for name, value in hook.environment],
            },
        )
        path = f"/exec/{made['Id']}"
        async with self.alive(), self.session().post(f"http://node{path}/start", json={}) as reply:
            raw = await reply.read()
        ended = await self.call("GET", f"{path}/json")
        return int(ended["ExitCode"] or 0), _payload(raw).decode(errors="replace").splitlines()

    async def close(self) -> None:
        """Close its connections."""
        if self._answering:
            self._answering.cancel()
        if self._session:
            await self._session.close()
            await asyncio.sleep(0)


def _payload(raw: bytes) -> bytes:
    """What both streams of a container wrote, without the heads of the frames; b"" where they are not frames."""
    with contextlib.suppress(FrameError):
        return b"".join(payload for _, payload in FrameDecoder().feed(raw))
    return b""
