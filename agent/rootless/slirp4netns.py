"""Published ports of a user's own pystack: those of the host that slirp4netns forwards into the network namespace.

Source: slirp4netns(1), "API socket".
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent.errors import AgentError

HERE = "10.0.2.100"
"""The address by which slirp4netns reaches the namespace."""
WITHIN_S = 10.0
LOWEST = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


class PortForwardError(AgentError):
    """slirp4netns does not forward a port."""


ForwardedPort = tuple[str, str, int]
"""Protocol, address of the host, port."""


class PortForwarder:
    """Ports of the host that slirp4netns forwards into the namespace, to the same port there."""

    def __init__(self, run: Path) -> None:
        self._socket = run / "slirp4netns.sock"
        self._open: dict[ForwardedPort, int] | None = None

    def keep(self, wanted: Iterable[ForwardedPort]) -> dict[ForwardedPort, str]:
        """Have exactly *wanted* forwarded. Returns those that cannot be, each with why."""
        doors = set(wanted)
        if self._open is None:
            self._open = self._listed()
        for door in self._open.keys() - doors:
            self._ask("remove_hostfwd", {"id": self._open.pop(door)})
        failed = {}
        for door in sorted(doors - self._open.keys()):
            protocol, host, port = door
            try:
                self._open[door] = self._ask(
                    "add_hostfwd",
                    {
                        "proto": protocol,
                        "host_addr": host,
                        "host_port": port,
                        "guest_addr": HERE,
                        "guest_port": port,
                    },
                )["id"]
            except PortForwardError as error:
                low = int(LOWEST.read_text())
                failed[door] = f"ports below {low} are root's" if port < low else f"it is in use ({error})"
        return failed

    def _listed(self) -> dict[ForwardedPort, int]:
        entries = self._ask("list_hostfwd", {}).get("entries", [])
        return {(e["proto"], e["host_addr"], e["host_port"]): e["id"] for e in entries}

    def _ask(self, what: str, arguments: dict[str, object]) -> dict[str, Any]:
        """One question a connection. Source: slirp4netns(1), API."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(WITHIN_S)
            try:
                sock.connect(str(self._socket))
                sock.sendall(json.dumps({"execute": what, "arguments": arguments}).encode())
                sock.shutdown(socket.SHUT_WR)
                received = b""
                while data := sock.recv(65536):
                    received += data
            except OSError as error:
                raise AgentError(f"slirp4netns does not answer: {error}") from error
        answer = json.loads(received)
        if "error" in answer:
            raise PortForwardError(str(answer["error"].get("desc", answer["error"])))
        return dict(answer.get("return", {}))
