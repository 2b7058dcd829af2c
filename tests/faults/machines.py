"""The machines of a lab as the fault matrix sees them: asked over their sockets, without a process for each question."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator import STALE
from orchestrator.errors import PystackError
from orchestrator.lab.fault import fault
from orchestrator.lab.lab import enter, find

SERVERS, AGENT = ("n1", "n2", "n3"), "n4"
NODES = (*SERVERS, AGENT)
ANSWER_S = 3.0
"""How long a server or an agent may take to answer one question."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Machines:
    """The machines of the lab called *name*."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = Path(f"/var/lib/pystack-lab/{name}")

    def _run(self, node: str) -> Path:
        """The machine's /run of pystack, as it sees that itself."""
        return Path(f"/proc/{find(self.name).machine(node).pid}/root{self.folder}/{node}/run")

    def _get(self, socket_path: Path, path: str) -> tuple[Any, bool]:
        """The JSON of a GET, and whether who answered leads. Raises OSError."""
        connection = _Unix(socket_path)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise OSError(f"{path}: {answer.status}")
            return json.loads(body), not answer.getheader(STALE)
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"{path}: {error}") from None
        finally:
            connection.close()

    def ask(self, path: str) -> Any:
        """What the server that leads answers. Raises OSError where none does."""
        for node in SERVERS:
            try:
                found, leads = self._get(self._run(node) / "pystack.sock", path)
            except OSError:
                continue
            if leads:
                return found
        raise OSError("no server leads")

    def leader(self) -> str:
        """The node of the server that leads. Raises OSError where none does."""
        for node in SERVERS:
            try:
                if self._get(self._run(node) / "pystack.sock", "/v1/version")[1]:
                    return node
            except OSError:
                continue
        raise OSError("no server leads")

    def containers(self, node: str) -> dict[str, dict[str, Any]]:
        """What the engine of *node* says of each of its containers, by ID. Raises OSError."""
        path = self._run(node) / "docker.sock"
        rows, _ = self._get(path, "/containers/json?all=1")
        return {row["Id"]: self._get(path, f"/containers/{row['Id']}/json")[0] for row in rows}

    def fault(self, *words: str) -> None:
        """As `pystack lab fault`. Raises PystackError."""
        fault(find(self.name), *words)

    def run(self, node: str, *words: str, check: bool = False) -> str:
        """Run a command on *node*; what it printed. One that is off prints nothing."""
        try:
            command = [*enter(find(self.name), node), *words]
        except PystackError:
            return ""
        return subprocess.run(command, capture_output=True, text=True, check=check, stdin=subprocess.DEVNULL).stdout

    def signal(self, node: str, number: str, pattern: Sequence[str]) -> None:
        """Send a signal to the processes of *node* that pkill(1) finds by *pattern*."""
        self.run(node, "pkill", f"-{number}", *pattern)
