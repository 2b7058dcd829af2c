"""What becomes a span, and how it gets to a collector, which is real in its protocol alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.tracing.export import MOST_WAITING, Exporter
from orchestrator.tracing.spans import MOST_SPANS, Span, read_traceparent, record, span, trace, traceparent
from tests.conftest import eventually
from tests.tracing.receiver import needs_exporter, serve, spans_in

TRACE, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"00-{TRACE}-{ABOVE}-01", (TRACE, ABOVE, True)),
        (f"00-{TRACE}-{ABOVE}-00", (TRACE, ABOVE, False)),
        (f"cc-{TRACE}-{ABOVE}-03-more", (TRACE, ABOVE, True)),
        (f"ff-{TRACE}-{ABOVE}-01", None),
        (f"00-{'0' * 32}-{ABOVE}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{ABOVE}-01", None),
        (f"00-{TRACE}-{ABOVE}-01\r\nX: y", None),
        ("", None),
        ("0" * 100_000, None),
    ],
)
def test_a_traceparent_is_read_as_w3c_says(text: str, found: object) -> None:
    assert read_traceparent(text) == found


def test_spans_are_nested_and_say_what_failed() -> None:
    sent: list[list[Span]] = []
    inner: list[str] = []

    def up() -> None:
        with trace("up", f"00-{TRACE}-{ABOVE}-01", "server", sent.append, path="/v1/up") as attributes:
            with span("plan") as of_plan:
                of_plan["steps"] = 3
                record("place", 1.0, 2.5, node="n1")
                inner.append(traceparent())
            attributes["failures"] = 1
            raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        up()
    ((placed, plan, root),) = sent
    assert (root.trace, root.parent, root.kind, root.error) == (TRACE, ABOVE, "server", "no room")
    assert root.attributes == {"path": "/v1/up", "failures": 1}
    assert (plan.parent, plan.attributes, plan.error) == (root.span, {"steps": 3}, "")
    assert inner == [f"00-{TRACE}-{plan.span}-01"]
    assert (placed.parent, placed.start, placed.end, placed.attributes) == (plan.span, 10**9, 25 * 10**8, {"node": "n1"})
    assert root.start <= plan.start <= plan.end <= root.end


def test_without_a_trace_nothing_is_kept() -> None:
    with span("alone") as attributes:
        attributes["some"] = 1
        record("more", 1.0, 2.0)
        assert traceparent() == ""
    sent: list[list[Span]] = []
    with trace("unseen", f"00-{TRACE}-{ABOVE}-00", "server", sent.append), span("inner"):
        assert traceparent() == ""
    with trace("nowhere", "", "server", None), span("inner"):
        assert traceparent() == ""
    assert sent == []


def test_a_trace_has_an_end_and_a_largest_size() -> None:
    sent: list[list[Span]] = []
    with trace("large", "", "client", sent.append):
        for _ in range(MOST_SPANS + 10):
            record("one", 1.0, 2.0)
    (spans,) = sent
    assert (len(spans), spans[-1].name) == (MOST_SPANS + 1, "large")


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    server = serve("127.0.0.1", 0, tmp_path)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path
    server.shutdown()
    thread.join()
    server.server_close()


def one(name: str = "up", parent: str = ABOVE) -> list[Span]:
    return [Span(name, TRACE, "b" * 16, parent, "server", 10**18, 10**18 + 5, {"node": "n1", "steps": 3}, "it failed")]


@needs_exporter
def test_a_collector_gets_what_was_collected(collector: tuple[str, Path]) -> None:
    endpoint, folder = collector
    exporter = Exporter("pystack-server", endpoint)
    exporter.send(one())
    exporter.send(one("second", ""))
    exporter.close(30)
    (service, first), (_, second) = spans_in(folder)
    assert (service, first.name, first.trace_id.hex(), first.parent_span_id.hex()) == ("pystack-server", "up", TRACE, ABOVE)
    assert (first.start_time_unix_nano, first.end_time_unix_nano) == (10**18, 10**18 + 5)
    assert {a.key: a.value.string_value or a.value.int_value for a in first.attributes} == {"node": "n1", "steps": 3}
    assert (first.status.message, first.status.code, first.kind) == ("it failed", 2, 2)
    assert (second.name, second.parent_span_id) == ("second", b"")


@needs_exporter
def test_who_sends_to_a_collector_that_never_answers_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        exporter = Exporter("pystack-server", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for _ in range(MOST_WAITING + 10):
            exporter.send(one())
        eventually(lambda: _in("does not keep up", caplog.text))
        exporter.close(0)


def _in(part: str, whole: str) -> None:
    assert part in whole
