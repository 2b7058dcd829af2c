"""Sessions: what a client lends to its builds. The node calls, the client answers, over a connection that it opened.

Source: BuildKit, session/manager.go (headers), session/filesync, session/auth, session/secrets, session/sshforward,
session/upload; Docker Engine API, `POST /session`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from agent.buildkit import messages
from agent.buildkit.grpc import NOT_FOUND, UNIMPLEMENTED, CallError, Connection, Stream
from agent.contract.printable import quoted
from agent.contract.takeover import Taken
from agent.errors import BadRequestError, NotFoundError
from agent.images.credentials import TOKEN, Credentials

WAIT_S = 15.0
"""Seconds for a session to come that a build names: the two are sent side by side."""
HEALTH_S, SILENT_S = 10.0, 60.0
"""Seconds between two questions after a client's health, and after which it is given up."""
LONGEST = 256
"""Characters of a session's ID."""
HUB = "registry-1.docker.io"
"""What BuildKit's clients call Docker Hub."""
ABSENT = (NOT_FOUND, UNIMPLEMENTED)
FILES, SEND = "/moby.filesync.v1.FileSync/DiffCopy", "/moby.filesync.v1.FileSend/DiffCopy"
SECRET, CREDENTIALS = "/moby.buildkit.secrets.v1.Secrets/GetSecret", "/moby.filesync.v1.Auth/Credentials"
CHECK_AGENT, FORWARD_AGENT = "/moby.sshforward.v1.SSH/CheckAgent", "/moby.sshforward.v1.SSH/ForwardAgent"
PULL_UPLOAD, HEALTH = "/moby.upload.v1.Upload/Pull", "/grpc.health.v1.Health/Check"


class Session:
    """A client, as long as its connection lasts. *shared* is the same for all sessions over the same folder, "" unknown."""

    def __init__(self, ident: str, shared: str, methods: Sequence[str], connection: Connection) -> None:
        self.ident, self.shared, self.connection = ident, shared, connection
        self.methods = frozenset(methods)

    def has(self, path: str) -> bool:
        """Whether the client offers the call *path*."""
        return path in self.methods

    async def files(self, folder: str, **words: Sequence[str]) -> Stream:
        """A transfer of the client's folder called *folder*, of what *words* (`include_patterns`, …) choose. Raises
        CallError."""
        metadata = [("dir-name", folder)]
        for name, values in words.items():
            key = name if name == "followpaths" else name.replace("_", "-")
            metadata += [(key, value) for value in values if value.isascii() and value.isprintable()]
        return await self.connection.call(FILES, metadata)

    async def secret(self, ident: str) -> bytes | None:
        """What the client's secret *ident* contains; None where it has none."""
        if not self.has(SECRET):
            return None
        try:
            request = messages.SecretRequest(id=ident)
            return (await self.connection.ask(SECRET, request, messages.SecretAnswer)).data
        except CallError as error:
            if error.grpc in ABSENT or "not found" in str(error):
                return None
            raise

    async def credentials(self, host: str) -> Credentials | None:
        """How the client would log in at the registry *host*."""
        if not self.has(CREDENTIALS):
            return None
        request = messages.CredentialsRequest(host=HUB if host == "docker.io" else host)
        try:
            given = await self.connection.ask(CREDENTIALS, request, messages.CredentialsAnswer)
        except CallError:
            return None  # as without: the registry says whether it wants any
        if not given.secret:
            return None
        return Credentials(given.username or TOKEN, given.secret)

    async def has_agent(self, ident: str) -> bool:
        """Whether the client forwards to an SSH agent called *ident*."""
        if not self.has(CHECK_AGENT):
            return False
        try:
            await self.connection.ask(CHECK_AGENT, messages.SshRequest(id=ident), messages.Empty)
        except CallError:
            return False
        return True

    async def forward(self, ident: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes between a program and the client's SSH agent *ident* until either ends."""
        stream = await self.connection.call(FORWARD_AGENT, [("buildkit.ssh.id", ident)])

        async def out() -> None:
            while data := await reader.read(1 << 15):
                await stream.send(messages.Bytes(data=data))
            await stream.end()

        sending = asyncio.create_task(out())
        try:
            async for piece in stream.messages(messages.Bytes):
                writer.write(piece.data)
                await writer.drain()
        except (CallError, ConnectionError):
            pass  # the program sees that its agent is gone
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await stream.cancel()
            writer.close()


class Sessions:
    """All sessions of a node, by their IDs."""

    def __init__(self) -> None:
        self._all: dict[str, Session] = {}
        self._came = asyncio.Condition()

    async def serve(self, taken: Taken, ident: str, shared: str, methods: Sequence[str]) -> None:
        """Be there for the session *ident* until its connection ends. Raises BadRequestError."""
        connection = Connection(taken, client=True)
        session = Session(ident, shared, methods, connection)
        async with self._came:
            self._all[ident] = session
            self._came.notify_all()
        watching = asyncio.create_task(self._watch(session), name="session")
        try:
            await connection.run()
        finally:
            watching.cancel()
            if self._all.get(ident) is session:
                del self._all[ident]

    def check(self, ident: str) -> None:
        """Raises BadRequestError for what is not a session's ID, or one that is there."""
        if not ident or len(ident) > LONGEST or not ident.isprintable():
            raise BadRequestError("X-Docker-Expose-Session-Uuid: a session has an ID")
        if ident in self._all:
            raise BadRequestError(f"session {quoted(ident)} is there already")

    async def get(self, ident: str) -> Session:
        """The session *ident*, which may still be on its way. Raises NotFoundError."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S), self._came:
                await self._came.wait_for(lambda: ident in self._all)
        if ident not in self._all:
            raise NotFoundError(f"no active session for {quoted(ident)}: its client does not offer it within {WAIT_S:g} s")
        return self._all[ident]

    @staticmethod
    async def _watch(session: Session) -> None:
        """Give up a client that does not answer: it is not there any more, even if its connection is."""
        while True:
            await asyncio.sleep(HEALTH_S)
            try:
                async with asyncio.timeout(SILENT_S):
                    await session.connection.ask(HEALTH, messages.Empty(), messages.HealthAnswer)
            except CallError:
                pass  # it answers
            except TimeoutError:
                await session.connection.close()
                return
