"""Our own client as the receiver of outputs: it fetches each from the spool, by the ID that it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from agent.build.inputs import Client
from agent.build.outputs import Output
from agent.build.spool import Spool
from agent.images.credentials import Credentials


class SpoolReceiver:
    """Our own client: *tell* is called with each output, where it goes and the ID by which it is fetched."""

    def __init__(self, spool: Spool, client: Client, tell: Callable[[dict[str, object]], None]) -> None:
        self._spool, self._client, self._tell = spool, client, tell

    async def archive(self, output: Output, chunks: AsyncIterator[bytes]) -> None:
        """Takes one file. Raises AgentError."""
        self._tell({"id": await self._spool.put(chunks), "kind": output.kind, "to": output.attributes.get("dest", "")})

    async def tree(self, output: Output, chunks: AsyncIterator[bytes], folder: Path) -> None:
        """Takes the files of a tar. Raises AgentError."""
        del folder
        await self.archive(output, chunks)

    async def credentials(self, host: str) -> Credentials | None:
        """How to log in at the registry *host*."""
        return await self._client.credentials(host)
