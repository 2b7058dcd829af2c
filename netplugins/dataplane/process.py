"""The process: reads the document, serves it, and reads it again on the agent's request."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
from pathlib import Path

import msgspec

from netplugins.forwarder import Forwarder
from netplugins.resolver.server import Resolver
from netplugins.resolver.table import DataplaneState, Names


class Dataplane:
    """Resolver and forwarder over the document in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.document = directory / "dataplane.json"
        self.socket = directory / "dataplane.sock"
        self.resolver = Resolver()
        self.forwarder = Forwarder()
        self._lock = asyncio.Lock()
        self._last: bytes | None = None
        self._problems: dict[str, str] = {}

    async def reload(self) -> dict[str, str]:
        """Serve the document. Returns what failed → why; the next call tries that again. Raises OSError, or
        msgspec.MsgspecError for a damaged document."""
        async with self._lock:
            raw = self.document.read_bytes() if self.document.exists() else b"{}"
            if raw == self._last and not self._problems:
                return {}
            document = msgspec.json.decode(raw, type=DataplaneState)
            names = Names(document.names)
            problems = await self.resolver.update(document.views, names, document.ttl)
            problems |= await self.forwarder.update(document.forwards)
            self._last, self._problems = raw, problems
            return problems

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the agent: reload at each line but `counts`, and answer with a line of JSON."""
        try:
            while line := await reader.readline():
                if line == b"counts\n":
                    writer.write(json.dumps({"counts": self.resolver.counts}).encode() + b"\n")
                    await writer.drain()
                    continue
                try:
                    reply: dict[str, object] = {"problems": await self.reload(), "pid": os.getpid()}
                except (OSError, msgspec.MsgspecError) as error:
                    reply = {"error": str(error)}
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


async def main(directory: Path) -> None:
    """Run until SIGTERM or SIGINT. A second process for *directory* ends at once."""
    lock = os.open(directory / "dataplane.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    dataplane = Dataplane(directory)
    dataplane.socket.unlink(missing_ok=True)
    await dataplane.reload()
    previous = os.umask(0o177)
    server = await asyncio.start_unix_server(dataplane.serve, dataplane.socket)
    os.umask(previous)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()
    dataplane.socket.unlink(missing_ok=True)
