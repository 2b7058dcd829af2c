"""Traces of `up`: one trace of the command and the server, at a collector that is there, and none where it is away."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually
from tests.tracing.receiver import needs_exporter, serve, spans_in

pytestmark = needs_exporter
TRACE, ABOVE, PORT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 4318
WEB = """
services:
  web:
    image: busybox
    command: httpd -f -p 80
    stop_signal: SIGKILL
    healthcheck: {test: "true", interval: 300ms}
    deploy: {replicas: 2, placement: {max_replicas_per_node: 1}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        Path(f"{pystack.environment['PYSTACK_ROOT']}/config.yml").write_text(f"traces: http://10.99.0.254:{PORT}\n")
        pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")
        eventually(lambda: _ready(pystack), 30)
        yield pystack


def _ready(lab: Pystack) -> None:
    done = lab("node", "ls", "--format", "json", check=False)
    assert done.returncode == 0
    assert done.stdout.count('"ready"') == 2


@pytest.fixture
def of_server(lab: Pystack, tmp_path: Path) -> Iterator[Path]:
    """What a collector beside the nodes gets."""
    folder = tmp_path / "server"
    folder.mkdir()
    words = [sys.executable, "-m", "tests.tracing.receiver", "10.99.0.254", str(PORT), str(folder)]
    with subprocess.Popen(["nsenter", "-t", lab.pid(), "-n", "--", *words], cwd=Path(__file__).parents[2]) as child:
        eventually(lambda: _has(f":{PORT}", lab.on("outside", "ss", "-ltn")))
        yield folder
        child.terminate()


@pytest.fixture
def of_client(lab: Pystack, tmp_path: Path) -> Iterator[Path]:
    """What a collector on loopback gets, which the command's environment names."""
    folder = tmp_path / "client"
    folder.mkdir()
    collector = serve("127.0.0.1", 0, folder)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    lab.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server_address[1]}"
    lab.environment["TRACEPARENT"] = f"00-{TRACE}-{ABOVE}-01"
    yield folder
    del lab.environment["OTEL_EXPORTER_OTLP_ENDPOINT"], lab.environment["TRACEPARENT"]
    collector.shutdown()
    thread.join()
    collector.server_close()


def _has(part: str, whole: str) -> None:
    assert part in whole


def sent(folder: Path, last: str) -> dict[str, list[Any]]:
    """The spans by name, once that named *last* is there."""
    found: dict[str, list[Any]] = {}

    def whole() -> None:
        found.clear()
        for _, one in spans_in(folder):
            found.setdefault(one.name, []).append(one)
        assert last in found

    eventually(whole, 30)
    return found


def test_command_and_server_are_one_trace(stack: Stack, lab: Pystack, of_server: Path, of_client: Path) -> None:
    stack.up(WEB)
    client, server = sent(of_client, "pystack up"), sent(of_server, "POST /v1/up")
    assert {one.trace_id.hex() for spans in (client, server) for many in spans.values() for one in many} == {TRACE}
    (command,), (request,) = client["pystack up"], server["POST /v1/up"]
    assert command.parent_span_id.hex() == ABOVE
    assert client["load"][0].parent_span_id == request.parent_span_id == command.span_id
    attributes = {a.key: a.value.string_value for a in server["ship image"][0].attributes}
    assert attributes == {"image": "busybox", "source": "n1", "target": "n2"}
    assert {"plan", "prepare nodes", "write and deliver", "roll out", "settle"} <= server.keys()
    assert server["plan"][0].parent_span_id == request.span_id
    tasks = {one.span_id: {a.key: a.value.string_value for a in one.attributes} for one in server["task"]}
    assert {(a["node"], a["service"], a["health"]) for a in tasks.values()} == {
        ("n1", "web", "healthy"),
        ("n2", "web", "healthy"),
    }
    for part in ("create", "start", "wait healthy"):
        assert {one.parent_span_id for one in server[part]} == tasks.keys(), part
    whole = [one for many in server.values() for one in many]
    assert all(request.start_time_unix_nano <= one.start_time_unix_nano for one in whole)
    assert all(one.end_time_unix_nano <= request.end_time_unix_nano for one in whole)


def test_what_fails_is_in_its_span(stack: Stack, lab: Pystack, of_server: Path, of_client: Path) -> None:
    assert stack.up(WEB.replace("max_replicas_per_node: 1", "constraints: [node.hostname==n9]"), check=False).returncode
    (command,) = sent(of_client, "pystack up")["pystack up"]
    assert command.status.code == 2
    assert command.status.message


def test_up_goes_on_without_the_collector(stack: Stack, lab: Pystack) -> None:
    lab.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1"
    try:
        done = stack.up(WEB)
    finally:
        del lab.environment["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert "trace" not in (done.stdout + done.stderr).lower()
