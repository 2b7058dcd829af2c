"""The log of changes, as a syslog server hears it: by each way, and by one that is away for a while."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.server.access.log import AuditLine
from orchestrator.server.access.syslog import Shipper

WITHIN_S = 20.0
HEAD = b"<110>pystack-audit: "
"""Facility 13 (log audit), severity 6 (RFC 5424 §6.2.1), and the tag."""


def line(number: int, **more: Any) -> AuditLine:
    fields = {"id": str(number), "time": 1.0, "user": "ada", "role": "operator", "way": "token", "source": "192.0.2.7"}
    return AuditLine(**{**fields, "action": "POST /v1/up", "stack": "shop", **more})


@contextmanager
def shipping(url: str) -> Iterator[Shipper]:
    shipper = Shipper(url)
    try:
        yield shipper
    finally:
        shipper.close()


def read(data: bytes) -> Any:
    assert data.startswith(HEAD), data
    return json.loads(data.removeprefix(HEAD).rstrip(b"\n"))


@contextmanager
def hearing(scheme: str, folder: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """A syslog server: the address for config.yml, and what gives its next message."""
    if scheme == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(WITHIN_S)
            taken: list[Any] = []

            def of_stream() -> bytes:
                if not taken:
                    connection, _ = server.accept()
                    connection.settimeout(WITHIN_S)
                    taken.append(connection.makefile("rb"))
                    connection.close()
                return bytes(taken[0].readline())

            yield f"tcp://127.0.0.1:{server.getsockname()[1]}", of_stream
            for one in taken:
                one.close()
        return
    with socket.socket(socket.AF_UNIX if scheme == "unix" else socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(WITHIN_S)
        server.bind(str(folder / "log") if scheme == "unix" else ("127.0.0.1", 0))
        where = f"unix://{folder}/log" if scheme == "unix" else f"udp://127.0.0.1:{server.getsockname()[1]}"
        yield where, lambda: server.recv(1 << 16)


@pytest.mark.parametrize("scheme", ["unix", "udp", "tcp"])
def test_each_change_is_a_message_of_one_line(scheme: str, tmp_path: Path) -> None:
    with hearing(scheme, tmp_path) as (url, hear), shipping(url) as ship:
        ship(line(1, message="a line\nand <13>another"))
        ship(line(2, outcome="refused", status=403))
        first = hear()
        found = read(first)
        assert (found["user"], found["action"], found["message"]) == ("ada", "POST /v1/up", "a line\nand <13>another")
        assert b"\n" not in first.rstrip(b"\n"), "what somebody wrote begins no line of its own"
        second = read(hear())
        assert (second["id"], second["outcome"], second["status"]) == ("2", "refused", 403)


def test_nobody_waits_for_a_server_that_is_away_and_it_hears_when_it_is_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with shipping(f"tcp://127.0.0.1:{port}") as ship:
        began = time.monotonic()
        ship(line(1))
        assert time.monotonic() - began < 1
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(WITHIN_S)
            ship(line(2))
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as heard:
                connection.settimeout(WITHIN_S)
                assert read(heard.readline())["id"] in ("1", "2")
