"""`lab forward`: a listening socket of the real host, served from inside a machine's network namespace.

The socket is made outside and inherited; connections that it accepts are relayed to the machine's own port.
Run as `nsenter -n … python -m orchestrator.lab.relay FD ADDRESS PORT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()


async def main(fd: int, address: str, port: int) -> None:
    """Accept connections on the listening socket *fd*, and relay each to *address*. Never returns."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(address, port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
        there[1].close()
        writer.close()

    server = await asyncio.start_server(serve, sock=socket.socket(fileno=fd))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
