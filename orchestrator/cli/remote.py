"""A server on another host, over the ssh program and what it is set up to do: `PYSTACK_HOST=ssh://user@host[:port]`.

Each connection is a `pystack system dial-stdio` over there; they share one SSH connection for a minute. PYSTACK_SSH_COMMAND
is another program, or has more options, as git has GIT_SSH_COMMAND. Source: ssh_config(5), ControlMaster.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import PystackError, UnreachableError


def dial(host: str) -> socket.socket:
    """A connection to the server at ssh://… Raises PystackError, UnreachableError with what ssh says."""
    parts = urlsplit(host)
    if not parts.hostname or parts.path not in ("", "/"):
        raise PystackError(f"PYSTACK_HOST={host}: write ssh://user@host or ssh://user@host:port")
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/pystack-ssh-{os.geteuid()}"
    Path(folder).mkdir(mode=0o700, exist_ok=True)
    command = [
        *shlex.split(os.environ.get("PYSTACK_SSH_COMMAND", "ssh")),
        "-T",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=15",
        "-o",
        "ControlMaster=auto",
        "-o",
        "ControlPersist=60",
        "-o",
        f"ControlPath={folder}/pystack-%C",
        *(["-p", str(parts.port)] if parts.port else []),
        f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname,
        "pystack",
        "system",
        "dial-stdio",
    ]
    mine, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as said:
        with theirs:
            try:
                process = subprocess.Popen(
                    command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=said, start_new_session=True
                )
            except FileNotFoundError:
                raise PystackError(f"PYSTACK_HOST=ssh://… needs the program {command[0]}") from None
        if mine.recv(1) == b"\0":  # dial-stdio says a byte when it is connected: what goes wrong before is ssh's to tell
            return mine
        process.wait()
        said.seek(0)
        lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    raise UnreachableError(f"{host}: {'; '.join(lines[-2:]) or 'ssh ended at once'}")


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
