"""Outputs that our own client fetches when its build is done: archives, files as a tar, caches.

build/outputs/<hex>     one, until it is fetched; what nobody fetches goes after a while, and with the agent
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from agent import files
from agent.contract.printable import quoted
from agent.errors import NotFoundError

WAIT_S = 120.0
"""Seconds for which an output waits to be fetched."""


class Spool:
    """The outputs of a node that wait."""

    def __init__(self, folder: Path) -> None:
        files.remove_tree(folder)
        folder.mkdir(mode=0o700)
        self._folder = folder

    async def put(self, chunks: AsyncIterator[bytes]) -> str:
        """Keep *chunks*; returns the ID under which they are fetched. Raises OSError."""
        ident = secrets.token_hex(16)
        path = self._folder / ident
        try:
            await written(chunks, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        asyncio.get_running_loop().call_later(WAIT_S, lambda: path.unlink(missing_ok=True))
        return ident

    async def take(self, ident: str) -> AsyncIterator[bytes]:
        """The output *ident*, which is gone then. Raises NotFoundError."""
        path = self._folder / ident
        if "/" in ident or not path.is_file():
            raise NotFoundError(f"no output {quoted(ident)} waits here")
        with path.open("rb") as file:
            path.unlink()
            while data := await asyncio.to_thread(file.read, 1 << 18):
                yield data


async def written(chunks: AsyncIterator[bytes], path: Path) -> None:
    """*chunks* as the file *path*. Raises OSError."""
    with path.open("wb") as file:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)
