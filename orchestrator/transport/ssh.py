"""The connection to a node over SSH, which forwards the agent's unix socket to this host.

The node needs no open port except SSH's. A lost connection is made again with back-off; the node's containers keep running
meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import asyncssh
import msgspec

from agent.contract.backoff import Backoff
from orchestrator.errors import PystackError, RefusedError, UnreachableError

KEEPALIVE_S = 2
"""A connection without an answer to two of these is lost: after 6 s."""
CONNECT_S = 10
"""How long a host may take to accept a connection."""
LOGIN_S = 60
"""How long one that accepted it may take to let us in: a busy or a slow machine, an sshd that asks DNS and PAM first."""
KEY_S = 30
"""How long one may take to show its key."""


class SshTarget(msgspec.Struct, frozen=True):
    """`[user@]host[:port]`; the defaults are those of ~/.ssh/config, then root and 22."""

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> SshTarget:
        """Raises RefusedError if *text* is not a target."""
        user, _, rest = text.rpartition("@")
        host, port = rest, ""
        if rest.startswith("["):
            host, _, port = rest[1:].partition("]")
            port = port.removeprefix(":")
        elif rest.count(":") == 1:
            host, _, port = rest.partition(":")
        if not host or (port and not port.isdecimal()) or host.startswith("-"):
            raise RefusedError(f"{text!r} is not an SSH target: write [user@]host[:port]", 400)
        return cls(host, user, int(port or 0))


class _Client(asyncssh.SSHClient):
    """Gives the login its own time once the host has accepted the connection."""

    def __init__(self, deadline: asyncio.Timeout) -> None:
        self._deadline = deadline

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Called by asyncssh."""
        if not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + LOGIN_S)


async def connect(text: str, host_key: str = "", accept_s: float = CONNECT_S) -> asyncssh.SSHClientConnection:
    """Connect to *text*, authenticated by agent or key file, ~/.ssh/config honoured. *accept_s*: how long it may take to accept
    the connection.

    *host_key* is the only key that is accepted; "" accepts those in known_hosts. Raises UnreachableError; RefusedError for a
    login that fails, and for a key that is unknown or has changed."""
    target = SshTarget.parse(text)
    options: dict[str, object] = {}
    if target.user:
        options["username"] = target.user
    if target.port:
        options["port"] = target.port
    if host_key:
        options["known_hosts"] = ([asyncssh.import_public_key(host_key)], [], [])
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(accept_s) as deadline:
            return await asyncssh.connect(
                target.host,
                client_factory=lambda: _Client(deadline),
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=2,
                password_auth=False,
                kbdint_auth=False,
                **options,
            )
    except asyncssh.HostKeyNotVerifiable:
        seen = fingerprint(await host_key_of(text))
        if host_key:
            raise RefusedError(
                f"the host key of {text} changed: it was {fingerprint(host_key)}, it is {seen}: another machine may answer "
                "in its place; if the host was reinstalled, `pystack node rm` it and add it again",
                409,
            ) from None
        raise RefusedError(
            f"the host key of {text} is not known: it is {seen}: compare it with `ssh-keygen -lf "
            f"/etc/ssh/ssh_host_ed25519_key.pub` on that host, then add it to known_hosts or pass --host-key {seen}",
            409,
        ) from None
    except asyncssh.PermissionDenied as error:
        raise RefusedError(
            f"{text} refuses the login: {error.reason}: load a key into ssh-agent, or name one in ~/.ssh/config", 403
        ) from None
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise UnreachableError(f"{text} does not answer over SSH: {_words(error, began)}") from None


def _words(error: BaseException, began: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {asyncio.get_running_loop().time() - began:.0f} s"
    return getattr(error, "strerror", "") or str(error) or type(error).__name__


async def host_key_of(text: str) -> str:
    """The host key that the host has now, in OpenSSH's form. Raises UnreachableError."""
    target = SshTarget.parse(text)
    options = {"port": target.port} if target.port else {}
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(KEY_S):
            key = await asyncssh.get_server_host_key(target.host, **options)  # type: ignore[arg-type]
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise UnreachableError(f"{text} does not answer over SSH: {_words(error, began)}") from None
    if key is None:
        raise UnreachableError(f"{text} shows no host key")
    return key.export_public_key().decode().strip()


def fingerprint(host_key: str) -> str:
    """The SHA-256 fingerprint of *host_key*, as ssh-keygen(1) prints it."""
    return asyncssh.import_public_key(host_key).get_fingerprint()


class SshTunnel:
    """Forwards the socket *remote* of a node to *local* as long as it runs, across lost connections."""

    def __init__(self, target: str, host_key: str, remote: str, local: Path) -> None:
        self.target = target
        self.host_key = host_key
        self.remote = remote
        self.local = local
        self.on_problem: Callable[[str], None] = lambda _: None
        """Called with the reason whenever the connection fails, and with "" when it is made."""
        self.connected = False
        """Whether the connection is there: the node's SSH server answers, even if its agent does not."""
        self.ends = ("", "")
        """The addresses of this host and of the node, as the node sees the connection."""
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Do not wait for the next try: others are reached again, so this one may be, too."""
        self._hurry.set()

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._task = asyncio.create_task(self._keep_connected(), name=f"ssh {self.target}")

    async def _keep_connected(self) -> None:
        pauses = Backoff(0.2, 10.0, jitter=0.5)
        while True:
            try:
                async with await connect(self.target, self.host_key) as connection:
                    self.local.unlink(missing_ok=True)
                    words = str((await connection.run("echo $SSH_CONNECTION")).stdout).split()  # sshd(8), ENVIRONMENT
                    self.ends = (words[0], words[2]) if len(words) == 4 else ("", "")
                    await connection.forward_local_path(str(self.local), self.remote)
                    self.local.chmod(0o600)
                    self.connected = True
                    self.on_problem("")
                    pauses.reset()
                    await connection.wait_closed()
                self.on_problem("the SSH connection was lost")
            except (PystackError, asyncssh.Error, OSError) as error:
                self.on_problem(str(error))
            finally:
                self.connected = False
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next(pauses)):
                    await self._hurry.wait()

    async def close(self) -> None:
        """Disconnect, and delete the local socket."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.local.unlink(missing_ok=True)
