"""How long a cluster of three servers is without one that leads, after its server is killed and after its machine is gone."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import STALE
from tests.conftest import Pystack, eventually

NODES = ("n1", "n2", "n3")
TRY_S, WITHIN_S = 0.02, 60.0


@dataclass
class Failover:
    """Seconds from the command for each fault, its own start included, until a server answered again that leads."""

    killed_s: list[float] = field(default_factory=list)
    gone_s: list[float] = field(default_factory=list)


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=2)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _nodes(lab: Pystack, node: str) -> list[dict[str, Any]] | None:
    """The nodes as the server of *node* knows them; None unless it leads."""
    connection = _Unix(Path(f"/var/lib/pystack-lab/{lab.lab}/{node}/run/pystack.sock"))
    try:
        connection.request("GET", "/v1/nodes")
        answer = connection.getresponse()
        body = answer.read()
        leads = answer.status == 200 and not answer.getheader(STALE)
        return list(json.loads(body)) if leads else None
    except OSError:
        return None
    finally:
        connection.close()


def _leader(lab: Pystack, others_than: str = "") -> Iterator[str]:
    return (n for n in NODES if n != others_than and _nodes(lab, n) is not None)


def _settled(lab: Pystack) -> str:
    """The node whose server leads; AssertionError unless all nodes are ready for it."""
    first = next(_leader(lab), "")
    rows = _nodes(lab, first) if first else None
    assert rows
    assert [row["state"] for row in rows] == ["ready"] * len(NODES)
    return first


def _until_led(lab: Pystack, began: float, gone: str) -> float:
    while time.monotonic() - began < WITHIN_S:
        if next(_leader(lab, gone), ""):
            return time.monotonic() - began
        time.sleep(TRY_S)
    raise AssertionError(f"nobody leads after {WITHIN_S:.0f} s")


def measured(lab: Pystack, rounds: int) -> Failover:
    """*rounds* of: kill the server that leads, which begins again at once; cut the power of the machine whose server leads."""
    seen = Failover()
    for _ in range(rounds):
        first = eventually(lambda: _settled(lab), 60)
        began = time.monotonic()
        lab("lab", "fault", "--name", lab.lab, "kill", first, "server")
        seen.killed_s.append(_until_led(lab, began, ""))
        first = eventually(lambda: _settled(lab), 60)
        began = time.monotonic()
        lab("lab", "fault", "--name", lab.lab, "crash", first)
        seen.gone_s.append(_until_led(lab, began, first))
        lab("lab", "fault", "--name", lab.lab, "boot", first)
    return seen
