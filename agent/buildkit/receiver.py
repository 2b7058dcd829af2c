"""Outputs that go to a client over its session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from agent.build.outputs import Output
from agent.build.spool import written
from agent.buildkit import filesync
from agent.buildkit.grpc import Stream
from agent.buildkit.messages import Bytes
from agent.buildkit.sessions import SEND, Session
from agent.errors import BadRequestError
from agent.images.credentials import Credentials

PIECE = 1 << 17


class SessionReceiver:
    """The client of *session*."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def archive(self, output: Output, chunks: AsyncIterator[bytes]) -> None:
        """Takes one file. Raises CallError, BadRequestError."""
        if output.kind == "cache":
            raise BadRequestError("a cache of the type local is kept by `pystack build` alone: use registry or inline")
        stream = await self._sending()
        async for chunk in chunks:
            for at in range(0, len(chunk), PIECE):
                await stream.send(Bytes(data=chunk[at : at + PIECE]))
        await stream.end()
        async for _ in stream.messages(Bytes):
            pass

    async def tree(self, output: Output, chunks: AsyncIterator[bytes], folder: Path) -> None:
        """Takes the files of a tar. Raises CallError, AgentError."""
        del output
        path = folder / "export.tar"
        await written(chunks, path)
        await filesync.send(await self._sending(), path)
        path.unlink()

    async def credentials(self, host: str) -> Credentials | None:
        """How to log in at the registry *host*."""
        return await self._session.credentials(host)

    async def _sending(self) -> Stream:
        if not self._session.has(SEND):
            raise BadRequestError("this output goes to the client, which takes no files")
        return await self._session.connection.call(SEND)
