"""A server started by the first command that needs one, in the background."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from orchestrator.cli.endpoint import dial
from orchestrator.errors import PystackError, UnreachableError


def start_server(path: str) -> None:
    """Start the all-in-one server in the background, and wait until it answers."""
    require_server_parts()
    require_runtime_folder()
    state = _log_directory(path)
    log = state / "server.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-E", "-s", "-m", "orchestrator.embedded"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd="/",
        )
        begin = out.tell()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            dial(path).close()
            return
        except OSError:
            time.sleep(0.01)
        if process.poll() is not None:
            with log.open("rb") as file:
                file.seek(begin)
                output = file.read().decode(errors="replace").strip()
            # its own last words, in all their lines; of a fault of ours the last one tells most
            _, own, words = output.rpartition("pystack server: ")
            last = words if own else next(reversed(output.splitlines()), "it gave no reason")
            raise UnreachableError(f"the server did not start: {last} (see {log})")
    raise UnreachableError(f"the server does not answer after 30 s: see {log}")


def require_server_parts() -> None:
    """Raises PystackError where the client alone is installed."""
    missing = [name for name in ("aiohttp", "asyncssh", "networkx", "pyroute2", "uvloop") if not find_spec(name)]
    if missing:
        raise PystackError(
            f"the client alone is installed here ({', '.join(missing)} missing): name a server with "
            "PYSTACK_HOST=ssh://user@host, or `pip install 'pystack-orchestrator[server]'` for one on this host"
        )


def require_runtime_folder() -> None:
    """Raises PystackError for an ordinary user with nowhere to keep the socket."""
    if os.geteuid() == 0 or os.environ.get("PYSTACK_ROOT"):
        return
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    if not os.access(folder, os.W_OK | os.X_OK):
        from orchestrator import hostcheck

        what, remedy = hostcheck.no_runtime_folder(getpass.getuser())
        raise PystackError(f"{folder}: {what}: {remedy}")


def _log_directory(path: str) -> Path:
    root = os.environ.get("PYSTACK_ROOT")
    directory = Path(root) if root else Path("/var/log/pystack") if os.geteuid() == 0 else Path(path).parent
    directory.mkdir(parents=True, exist_ok=True)
    return directory
