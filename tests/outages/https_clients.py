"""Clients of the cluster's ingress that ask all the time, run by themselves in a namespace; they print a JSON object a request.

    python https_clients.py ROOT.pem HOST RATE ADDRESS…

RATE requests a second each on new connections (POST) and on kept ones (GET), at the addresses in turn. A line on standard input
has the addresses to ask from then on. A kept connection that was closed before it answered is opened once more, as browsers do
(RFC 9110 §9.2.2): such a request is `again`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time

PATIENCE_S, KEPT = 10.0, 8
"""How long one request may take; kept connections to each address."""


class Clients:
    """What all of them share."""

    def __init__(self, root: str, host: str, rate: float, addresses: list[str]) -> None:
        self.host, self.rate, self.addresses = host, rate, addresses
        self.tls = ssl.create_default_context(cafile=root)
        self.kept: dict[str, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}

    async def _open(self, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(address, 443, ssl=self.tls, server_hostname=self.host)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, verb: str) -> tuple[int, str]:
        length = "Content-Length: 0\r\n" if verb == "POST" else ""
        writer.write(f"{verb} / HTTP/1.1\r\nHost: {self.host}\r\n{length}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length:"))
        return int(head.split()[1]), (await reader.readexactly(size)).decode()

    async def _short(self, address: str) -> tuple[int, str, bool]:
        reader, writer = await self._open(address)
        try:
            return *await self._exchange(reader, writer, "POST"), False
        finally:
            writer.close()

    async def _keep(self, address: str) -> tuple[int, str, bool]:
        pool = self.kept.setdefault(address, [])
        while pool:
            reader, writer = pool.pop()
            if reader.at_eof() or writer.is_closing():
                continue
            try:
                answer = await self._exchange(reader, writer, "GET")
            except (ConnectionError, asyncio.IncompleteReadError):
                writer.close()
                return *(await self._first(address)), True
            except BaseException:
                writer.close()
                raise
            self._put(address, reader, writer)
            return *answer, False
        return *(await self._first(address)), False

    async def _first(self, address: str) -> tuple[int, str]:
        reader, writer = await self._open(address)
        answer = await self._exchange(reader, writer, "GET")
        self._put(address, reader, writer)
        return answer

    def _put(self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pool = self.kept.setdefault(address, [])
        if len(pool) < KEPT:
            pool.append((reader, writer))
        else:
            writer.close()

    async def ask(self, how: str, address: str) -> None:
        """One request, and its line."""
        begun, problem, again, by = time.time(), "", False, ""
        try:
            async with asyncio.timeout(PATIENCE_S):
                status, by, again = await (self._short(address) if how == "short" else self._keep(address))
            problem = "" if status == 200 else f"status {status}: {by.strip()[:80]}"
        except (OSError, EOFError, TimeoutError) as error:
            problem = f"{type(error).__name__}: {error}"
        row = {"how": how, "at": address, "begun": begun, "ended": time.time(), "problem": problem, "again": again, "by": by}
        sys.stdout.write(json.dumps(row) + "\n")

    async def _each(self, how: str) -> None:
        started, number, running = time.monotonic(), 0, set[asyncio.Task[None]]()
        while True:
            due = started + number / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self.ask(how, self.addresses[number % len(self.addresses)]))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1

    async def _listen(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            self.addresses = line.decode().split()

    async def run(self) -> None:
        """Until standard input ends; then those under way are waited for."""
        asking = [asyncio.create_task(self._each(how)) for how in ("short", "keep")]
        await self._listen()
        for task in asking:
            task.cancel()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=PATIENCE_S + 1)
        sys.stdout.flush()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    asyncio.run(Clients(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:]).run())
