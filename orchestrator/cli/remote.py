"""A server on another host, over the ssh program and what it is set up to do: `PYSTACK_HOST=ssh://user@host[:port]`.

Each connection is a `pystack system dial-stdio` over there; they share one SSH connection for a minute. PYSTACK_SSH_COMMAND
is another program, or has more options, as git has GIT_SSH_COMMAND. Source: ssh_config(5), ControlMaster.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from orchestrator.errors import PystackError, UnreachableError

UNIX = hasattr(os, "geteuid")


def dial(host: str) -> socket.socket:
    """A connection to the server at ssh://… Raises PystackError, UnreachableError with what ssh says."""
    parts = urlsplit(host)
    if not parts.hostname or parts.path not in ("", "/"):
        raise PystackError(f"PYSTACK_HOST={host}: write ssh://user@host or ssh://user@host:port")
    command = [
        *shlex.split(os.environ.get("PYSTACK_SSH_COMMAND", "ssh")),
        "-T",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=15",
        *_shared_connection(),
        *(["-p", str(parts.port)] if parts.port else []),
        f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname,
        "pystack",
        "system",
        "dial-stdio",
    ]
    mine, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as errors:
        try:
            process = _start_between(command, theirs, errors) if UNIX else _start_behind_pipes(command, theirs, errors)
        except FileNotFoundError:
            raise PystackError(f"PYSTACK_HOST=ssh://… needs the program {command[0]}") from None
        if mine.recv(1) == b"\0":  # dial-stdio says a byte when it is connected: what goes wrong before is ssh's to tell
            return mine
        process.wait()
        errors.seek(0)
        lines = [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    raise UnreachableError(f"{host}: {'; '.join(lines[-2:]) or 'ssh ended at once'}")


def _shared_connection() -> list[str]:
    """ssh's options for one connection that all commands of a minute share; none where ssh has no unix sockets for it."""
    if not UNIX:
        return []
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/pystack-ssh-{os.geteuid()}"
    Path(folder).mkdir(mode=0o700, exist_ok=True)
    return ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={folder}/pystack-%C"]


def _start_between(command: Sequence[str], end: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start *command* with *end* as its standard input and output. Raises FileNotFoundError."""
    with end:
        return subprocess.Popen(command, stdin=end.fileno(), stdout=end.fileno(), stderr=errors, start_new_session=True)


def _start_behind_pipes(command: Sequence[str], end: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """As `_start_between`, on systems whose sockets are not files (Windows): two threads carry the bytes."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0)

    def inward() -> None:
        with contextlib.suppress(OSError), process.stdin:  # type: ignore[union-attr]
            while data := end.recv(1 << 16):
                process.stdin.write(data)  # type: ignore[union-attr]

    def outward() -> None:
        with contextlib.suppress(OSError), end:
            while data := process.stdout.read(1 << 16):  # type: ignore[union-attr]
                end.sendall(data)
            end.shutdown(socket.SHUT_WR)

    for carry in (inward, outward):
        threading.Thread(target=carry, daemon=True).start()
    return process


def dial_stdio(path: str, hello: bytes = b"\0") -> None:
    """Be the other end: standard input and output are the connection to the socket at *path*, once *hello* is said."""
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(path)
    except OSError as error:
        raise UnreachableError(f"no pystack server answers at {path}: {error.strerror}") from None
    os.write(1, hello)

    def inward() -> None:
        while data := os.read(0, 1 << 16):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)

    threading.Thread(target=inward, daemon=True).start()
    while data := server.recv(1 << 16):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
