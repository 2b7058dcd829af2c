"""Lends SSH agents of this host to a build on a node: connections that stand ready, and the agent behind each that is used."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.cli.client import Client

BEGIN = b"+"


@contextlib.contextmanager
def lent(client: Client, agents: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Lend *agents*, sockets by name ("": that of SSH_AUTH_SOCK), while the block runs; the doors at which the node finds them.
    Raises PystackError for one that is not there."""
    doors = {name: _Door(client, _socket(name, path)) for name, path in agents.items()}
    try:
        for door in doors.values():
            door.open()
        yield {name: door.ident for name, door in doors.items()}
    finally:
        for door in doors.values():
            door.close()


def _socket(name: str, path: str) -> str:
    from orchestrator.errors import PystackError

    found = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not found:
        raise PystackError(f"ssh {name}: there is no SSH_AUTH_SOCK: start ssh-agent, or write {name}=SOCKET")
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(found)
    except OSError as error:
        raise PystackError(f"ssh {name}: no agent answers at {found}: {error.strerror}") from None
    return found


class _Door:
    """The agent at the socket *path*, for the builds that know *ident*."""

    def __init__(self, client: Client, path: str) -> None:
        self.ident = secrets.token_hex(16)
        self._client, self._path = client, path
        self._closed = False
        self._waiting: socket.socket | None = None

    def open(self) -> None:
        """Have a connection ready. Raises PystackError."""
        far = self._client.hijack(f"{self._client.base}/pystack/build/agents/{self.ident}", {})
        self._waiting = far
        threading.Thread(target=self._serve, args=(far,), daemon=True).start()

    def close(self) -> None:
        """Lend no more."""
        self._closed = True
        if self._waiting:
            with contextlib.suppress(OSError):
                self._waiting.shutdown(socket.SHUT_RDWR)

    def _serve(self, far: socket.socket) -> None:
        from orchestrator.errors import PystackError

        with far, contextlib.suppress(OSError):
            if far.recv(1) != BEGIN or self._closed:
                return
            with contextlib.suppress(PystackError):
                self.open()
            with socket.socket(socket.AF_UNIX) as near:
                near.connect(self._path)
                threading.Thread(target=_pump, args=(far, near), daemon=True).start()
                _pump(near, far)


def _pump(source: socket.socket, goal: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 15):
            goal.sendall(data)
        goal.shutdown(socket.SHUT_WR)
