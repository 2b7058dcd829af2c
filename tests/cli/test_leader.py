"""What a command does while no server leads: it waits for one, and asks again what was not done."""

from __future__ import annotations

import socket
import threading
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator import LEADER
from orchestrator.cli import leader
from orchestrator.cli.client import Client
from orchestrator.cli.leader import LostError, NoLeaderError, through_takeover
from orchestrator.errors import RefusedError, UnreachableError


@pytest.fixture(autouse=True)
def time_flies(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; each takes no time."""
    pauses: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    clock = types.SimpleNamespace(sleep=sleep, monotonic=lambda: now[0])
    monkeypatch.setattr("orchestrator.cli.leader.time", clock)
    return pauses


def attempts(*outcomes: object) -> Callable[[], object]:
    """What gives or raises one of *outcomes* each time, the last for ever."""
    left = list(outcomes)

    def attempt() -> object:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return attempt


NOBODY, OTHER = NoLeaderError("nobody", 503, ""), NoLeaderError("n2 leads", 503, "n2")
AWAY = UnreachableError("no server answers")


def test_it_goes_on_when_a_server_leads(capsys: pytest.CaptureFixture[str]) -> None:
    assert through_takeover(attempts(NOBODY, NOBODY, "done"), several=False) == "done"
    assert capsys.readouterr().err == "no server leads: waiting for one to take over\n"
    assert through_takeover(attempts(AWAY, OTHER, "done"), several=True) == "done"


@pytest.mark.parametrize(
    ("outcome", "several"),
    [(OTHER, False), (AWAY, False), (RefusedError("no", 409), True), (LostError("it may have done it"), True)],
)
def test_what_waiting_does_not_help_is_said_at_once(outcome: Exception, several: bool, time_flies: Sequence[float]) -> None:
    with pytest.raises(type(outcome), match=str(outcome)):
        through_takeover(attempts(outcome), several=several)
    assert not time_flies


def test_it_does_not_wait_for_ever(time_flies: Sequence[float]) -> None:
    with pytest.raises(NoLeaderError):
        through_takeover(attempts(NOBODY), several=False)
    assert leader.TAKEOVER_S <= sum(time_flies) <= leader.TAKEOVER_S + 1


def serve(path: Path, *answers: tuple[int, str]) -> list[bytes]:
    """A server that gives one of *answers*, a status and headers, to each connection. Returns the requests, as they come."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    asked: list[bytes] = []

    def answer() -> None:
        with listener:
            for status, headers in answers:
                taken, _ = listener.accept()
                with taken:
                    asked.append(taken.recv(1 << 16))
                    text = f"HTTP/1.1 {status} X\r\n{headers}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
                    taken.sendall(text.encode())

    threading.Thread(target=answer, daemon=True).start()
    return asked


def test_a_request_that_nobody_took_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(tmp_path / "s", (503, f"{LEADER}: \r\n"), (503, f"{LEADER}: \r\n"), (200, ""))
    monkeypatch.setenv("PYSTACK_HOST", f"unix://{tmp_path}/s")
    assert Client().json("POST", "/v1/up", body={"a": 1}) == {}
    assert len(asked) == 3
    assert len(set(asked)) == 1


def test_a_body_that_can_be_read_once_is_sent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(tmp_path / "s", (503, f"{LEADER}: \r\n"))
    monkeypatch.setenv("PYSTACK_HOST", f"unix://{tmp_path}/s")
    with pytest.raises(NoLeaderError):
        Client().json("POST", "/v1/images", body=iter([b"x"]))
    assert len(asked) == 1
