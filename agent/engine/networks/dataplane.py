"""The agent's end of the data path process, which serves names and ports of all containers: starts it, restarts it when it ends
or hangs, and hands it the current document."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent import files
from agent.contract.failpoints import failpoint
from agent.errors import AgentError
from netplugins.resolver.table import DataplaneState

WATCH_S = 5.0
"""The interval of the checks whether the process answers, and the time within which it must."""
BUSY_S = 30.0
"""The time within which it must answer where it could run and waits for a processor or the disk: it does not hang, and another
one in its place would be no quicker."""
START_S = 30.0
"""The time within which a new process must listen, unless it ends first."""
AGAIN_S = 0.2
log = logging.getLogger(__name__)


class DataplaneProcess:
    """The connection to the data path process: sends it each new document, and receives what it cannot serve."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._in_use = asyncio.Event()
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._last = b""

    def invalidate(self) -> None:
        """Send the next document even if it is equal to the last one."""
        self._last = b""

    async def update(self, document: DataplaneState) -> dict[str, str]:
        """Make the data path serve *document*. Returns what it cannot serve: name → reason. Raises AgentError."""
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
                async with asyncio.timeout(10):
                    line = await reader.readline()
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
        self._in_use.set()
        return problems

    async def supervise(self, revived: Callable[[str], None]) -> None:
        """Restart the process whenever it ends or does not answer, and call *revived* with the reason. Never returns."""
        await self._in_use.wait()
        while True:
            why = await self._end()
            while True:
                try:
                    await self._first_answer()
                    break
                except (AgentError, OSError, TimeoutError) as error:
                    log.warning("the data path process: %s", error)
                    await asyncio.sleep(AGAIN_S)
            log.warning("the data path process %s: it was started again", why)
            revived(why)

    async def counts(self) -> dict[str, float]:
        """What the resolver counted since the process began, by COUNTS of `netplugins.resolver.server`; empty while it does not
        answer, or is of an older version."""
        try:
            async with asyncio.timeout(WATCH_S):
                reader, writer = await asyncio.open_unix_connection(self.run / "dataplane.sock")
                try:
                    writer.write(b"counts\n")
                    found = json.loads(await reader.readline() or b"{}")
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError):
            return {}
        counts: dict[str, float] = found.get("counts", {})
        return counts

    async def _first_answer(self) -> None:
        """Have the process answer. One that was killed may still be connected to for a moment: that is not the new one. Raises
        AgentError, OSError, TimeoutError."""
        reader, writer = await self._connect(fresh=True)
        try:
            writer.write(b"reload\n")
            if not await _answer(reader, _listener(writer)):
                raise ConnectionResetError("it ended at once")
        finally:
            writer.close()

    async def _end(self) -> str:
        """Wait until the process ends, or end it where it hangs. Returns which of the two it was."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.run / "dataplane.sock")
        except OSError:
            return "ended"
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_S):
                        await reader.read(1)
                        return "ended"
                writer.write(b"reload\n")
                if not await _answer(reader, _listener(writer)):
                    return "ended"
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(_listener(writer), signal.SIGKILL)
            with contextlib.suppress(OSError, TimeoutError):  # until then it could still be connected to
                async with asyncio.timeout(WATCH_S):
                    await reader.read()
            return f"did not answer for {WATCH_S:g} s"
        except OSError:
            return "ended"
        finally:
            writer.close()

    async def _connect(self, *, fresh: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection to the process, or, if *fresh*, one of the caller's own."""
        if self._connection and not fresh:
            return self._connection
        path = self.run / "dataplane.sock"
        process: subprocess.Popen[bytes] | None = None
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            try:
                connection = await asyncio.open_unix_connection(path)
                if not fresh:
                    self._connection = connection
                return connection
            except (FileNotFoundError, ConnectionRefusedError):
                if process and process.poll() is not None:
                    break
                process = process or self._spawn()
                await asyncio.sleep(0.02)
        raise AgentError(f"the data path process did not come up: see {self.run / 'dataplane.log'}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.run / "dataplane.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-E", "-s", "-m", "netplugins.dataplane", str(self.run)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection[1].close()


def _listener(writer: asyncio.StreamWriter) -> int:
    """The PID of the process at the other end. Source: unix(7), SO_PEERCRED."""
    own: socket.socket = writer.get_extra_info("socket")
    return int(struct.unpack("3i", own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


async def _answer(reader: asyncio.StreamReader, pid: int) -> bytes:
    """The next line of the process *pid*; b"" if it ended. Raises TimeoutError if it hangs."""
    for _ in range(round(BUSY_S / WATCH_S)):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH_S):
                return await reader.readline()
        if _state(pid) not in "RD":
            break
    raise TimeoutError


def _state(pid: int) -> str:
    """What the process is at: R for running, S for asleep, T for stopped, Z once it ended. Source: proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (OSError, IndexError):
        return "Z"
