"""How long a host may take: to accept a connection, and then to let us in."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import asyncssh
import pytest

from orchestrator.errors import UnreachableError
from orchestrator.transport import ssh


class Open(asyncssh.SSHServer):
    """Lets in whoever comes."""

    def begin_auth(self, username: str) -> bool:
        return False


@contextlib.asynccontextmanager
async def slow_host(after_s: float) -> AsyncIterator[tuple[str, str]]:
    """A host that accepts at once and answers *after_s* later. Yields its target and its key."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    sshd = await asyncssh.listen("127.0.0.1", 0, server_factory=Open, server_host_keys=[key])

    passing: set[asyncio.Task[None] | None] = set()

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
        target.close()
        with contextlib.suppress(OSError):
            await target.wait_closed()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing.add(asyncio.current_task())
        await asyncio.sleep(after_s)
        far, near = await asyncio.open_connection("127.0.0.1", sshd.get_port())
        await asyncio.gather(copy(reader, near), copy(far, writer))

    door = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    port = door.sockets[0].getsockname()[1]
    async with sshd, door:
        yield f"root@127.0.0.1:{port}", key.export_public_key().decode()
        await asyncio.gather(*(task for task in passing if task))


async def test_a_host_that_has_accepted_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node under emulation took more than ten seconds, and could not be added."""
    monkeypatch.setattr(ssh, "CONNECT_S", 0.5)
    async with slow_host(1.5) as (target, key), await ssh.connect(target, key) as connection:
        assert connection.get_server_host_key() is not None


async def test_a_host_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "LOGIN_S", 1)
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # the kernel accepts, and nobody reads
        pytest.raises(UnreachableError, match="does not answer over SSH: no answer within 1 s"),
    ):
        await ssh.connect(f"root@127.0.0.1:{silent.getsockname()[1]}", key)
