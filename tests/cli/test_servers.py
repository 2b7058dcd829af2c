"""Which of several servers a command goes to."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from orchestrator import STALE
from orchestrator.cli.endpoint import control_socket
from orchestrator.errors import PystackError


def serve(path: Path, status: int, headers: str = "") -> str:
    """A socket on which one request is answered with *status*; 0 answers nothing, as a server that hangs."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def answer() -> None:
        taken, _ = listener.accept()
        with listener, taken:
            taken.recv(1 << 16)
            taken.sendall(f"HTTP/1.1 {status} X\r\n{headers}Content-Length: 2\r\n\r\n{{}}".encode())

    if status:
        threading.Thread(target=answer, daemon=True).start()
    else:
        HANGING.append(listener)
    return f"unix://{path}"


HANGING: list[socket.socket] = []


@pytest.fixture(autouse=True)
def hanging_ends() -> None:
    while HANGING:
        HANGING.pop().close()


def test_a_server_that_hangs_keeps_nobody_from_the_one_that_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [serve(tmp_path / "a", 0), serve(tmp_path / "b", 503), serve(tmp_path / "c", 200)]
    monkeypatch.setenv("PYSTACK_HOST", ",".join(places))
    assert control_socket() == str(tmp_path / "c")


def test_one_that_remembers_is_better_than_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [serve(tmp_path / "a", 503), serve(tmp_path / "b", 200, f"{STALE}: 5 nobody leads\r\n")]
    monkeypatch.setenv("PYSTACK_HOST", ",".join(places))
    assert control_socket() == str(tmp_path / "b")


def test_where_none_answers_the_first_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSTACK_HOST", f"unix://{tmp_path}/a,unix://{tmp_path}/b")
    assert control_socket() == str(tmp_path / "a")
    monkeypatch.setenv("PYSTACK_HOST", "unix:///a,http://b")
    with pytest.raises(PystackError, match="write unix:///path"):
        control_socket()
