"""The agent's end of the data path process: starts it where it does not run, and hands it the current document."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import msgspec

from agent import files
from agent.contract.failpoints import failpoint
from agent.errors import AgentError
from netplugins.resolver.table import DataplaneState


class DataplaneProcess:
    def __init__(self, run: Path) -> None:
        self.run = run
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._last = b""

    def invalidate(self) -> None:
        """Hand the next document over even where it is the last one."""
        self._last = b""

    async def update(self, document: DataplaneState) -> dict[str, str]:
        """Make the data path serve *document*; returns what it cannot serve: name → why."""
        data = msgspec.json.encode(document)
        if data == self._last:
            return {}
        failpoint("dataplane.update")
        files.write_atomically(self.run / "dataplane.json", data, 0o600)
        for attempt in (1, 2):
            try:
                reader, writer = await self._connect()
                writer.write(b"reload\n")
                await writer.drain()
                line = await asyncio.wait_for(reader.readline(), 10)
                if not line:
                    raise ConnectionResetError
                break
            except (OSError, TimeoutError) as error:
                self._connection = None
                if attempt == 2:
                    raise AgentError(f"the data path process does not answer: {error or 'timeout'}") from error
        reply = json.loads(line)
        if "error" in reply:
            raise AgentError(f"the data path process refused its document: {reply['error']}")
        problems: dict[str, str] = reply["problems"]
        self._last = b"" if problems else data
        return problems

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection:
            return self._connection
        path = self.run / "dataplane.sock"
        for attempt in range(200):
            try:
                self._connection = await asyncio.open_unix_connection(path)
                return self._connection
            except (FileNotFoundError, ConnectionRefusedError):
                if attempt == 0:
                    self._spawn()
                await asyncio.sleep(0.02)
        raise AgentError(f"the data path process did not come up: see {self.run / 'dataplane.log'}")

    def _spawn(self) -> None:
        with (self.run / "dataplane.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-E", "-s", "-m", "netplugins.dataplane", str(self.run)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )

    def close(self) -> None:
        if self._connection:
            self._connection[1].close()
