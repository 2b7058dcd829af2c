"""Replicas that follow the requests by ingress, and what a real Prometheus says; from none to some and back."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.long

QUEUE = """
services:
  worker:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    x-scale:
      min: 0
      max: 4
      target: {query: {promql: QUERY, value: 100}}
      down: {stabilise: 20s}
"""
WEB = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; echo yes > /w/index.html; exec httpd -f -p 8080 -h /w"
    expose: [8080]
    stop_signal: SIGKILL
    x-ingress: [{host: busy.internal, port: 8080, tls: "off"}]
    x-scale: {min: 1, max: 4, target: {rps: 10}, down: {stabilise: 20s}}
"""
LOAD = """
import http.client, select, sys, time
due = time.monotonic()
while not select.select([sys.stdin], [], [], 0)[0]:
    due += 1 / 30
    time.sleep(max(0, due - time.monotonic()))
    one = http.client.HTTPConnection("10.99.0.2", 80, timeout=20)
    one.request("GET", "/", headers={"Host": "busy.internal"})
    one.getresponse().read()
    one.close()
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pystack]:
    """Two nodes with ingress, and a Prometheus beside the server that reads the figures in the file `metrics`."""
    if not shutil.which("prometheus"):
        pytest.skip("needs Debian's prometheus: `make setup`")
    folder = tmp_path_factory.mktemp("prometheus")
    with cluster_of(2) as pystack:
        (folder / "metrics").write_text("queue_length 0\n")
        config = (
            "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: q, static_configs: [{targets: ['127.0.0.1:9101']}]}]\n"
        )
        (folder / "prometheus.yml").write_text(config)
        server = [sys.executable, "-m", "http.server", "9101", "--bind", "127.0.0.1", "--directory", str(folder)]
        prometheus = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        inside = ["nsenter", "-t", pystack.pid("n1"), "-n", "--"]
        children = [
            subprocess.Popen([*inside, *words], **quiet)  # type: ignore[call-overload]
            for words in (server, [*prometheus, "--web.listen-address=127.0.0.1:9090"])
        ]
        try:
            Path(f"{pystack.environment['PYSTACK_ROOT']}/config.yml").write_text("prometheus: http://127.0.0.1:9090\n")
            pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")
            eventually(lambda: pystack("ingress", "up"), 60)
            pystack.folder = folder  # type: ignore[attr-defined]
            yield pystack
        finally:
            for child in children:
                child.terminate()
                child.wait()


def set_queue(lab: Pystack, length: int) -> None:
    folder: Path = lab.folder  # type: ignore[attr-defined]
    (folder / "new").write_text(f"queue_length {length}\n")
    (folder / "new").replace(folder / "metrics")


def running(stack: Stack, count: int) -> None:
    assert len([t for t in stack.ps().values() if t["state"] == "running"]) == len(stack.ps()) == count


def test_a_query_takes_a_service_to_none_and_back(stack: Stack, lab: Pystack) -> None:
    set_queue(lab, 0)
    stack.up(QUEUE.replace("QUERY", "queue_length"))
    eventually(lambda: running(stack, 0), 120)
    set_queue(lab, 250)
    eventually(lambda: running(stack, 3), 120)
    (row,) = lab.json("autoscale", "ls", "-p", stack.name, "--format", "json")
    assert "query is 250, 100 for each, which asks for 3" in row["reason"]
    assert row["target"] == "query 100"
    stack.up()
    running(stack, 3)
    set_queue(lab, 0)
    eventually(lambda: running(stack, 0), 120)


WRONG = {
    "a mistake in the query": ('"sum(queue_length"', "parse error"),
    "several numbers": ('"{__name__=~\\"queue_length|up\\"}"', "it gives 2 series, not one: sum() them"),
}


@pytest.mark.parametrize(("query", "why"), WRONG.values(), ids=WRONG)
def test_a_query_that_is_wrong_is_told_in_the_plan(stack: Stack, query: str, why: str) -> None:
    stack.write(QUEUE.replace("QUERY", query))

    def refused() -> None:  # two series are there when it has read both
        done = stack.run("plan", check=False)
        assert done.returncode == 1
        assert f"{stack.file}:10:16: services.worker.x-scale.target.query: " in done.stderr
        assert why in done.stderr

    eventually(refused, 30)


@contextmanager
def asking(lab: Pystack) -> Iterator[None]:
    words = [
        sys.executable,
        "-m",
        "orchestrator",
        "lab",
        "exec",
        "--name",
        lab.lab,
        "outside",
        "--",
        sys.executable,
        "-c",
        LOAD,
    ]
    with subprocess.Popen(words, env=lab.environment, stdin=subprocess.PIPE, text=True) as child:
        try:
            yield
        finally:
            child.communicate("stop\n", timeout=60)


IDLE = (
    WEB.replace("min: 1", "min: 0")
    .replace("stabilise: 20s", "stabilise: 15s")
    .replace("busy.internal", "idle.internal")
    .replace("expose", "deploy: {replicas: REPLICAS}\n    expose")
)


def ask(lab: Pystack, node: int) -> str:
    url = f"http://10.99.0.{node}/"
    script = (
        "import time, urllib.request as u; begun = time.monotonic(); "
        f"r = u.urlopen(u.Request('{url}', headers={{'Host': 'idle.internal'}}), timeout=60); "
        "print(r.status, r.read().decode().strip(), f'{time.monotonic() - begun:.1f} s')"
    )
    return lab.on("outside", sys.executable, "-c", script, timeout=90).strip()


def test_the_first_request_wakes_a_service_that_has_no_replica(stack: Stack, lab: Pystack) -> None:
    stack.up(IDLE.replace("REPLICAS", "0"))
    eventually(lambda: running(stack, 0), 120)
    for node in (1, 2):  # by way of the server's node, and of another
        with ThreadPoolExecutor(3) as pool:
            for answer in pool.map(functools.partial(ask, lab), [node] * 3):
                assert answer.startswith("200 yes"), answer
        running(stack, 1)
        if node == 1:
            eventually(lambda: running(stack, 0), 180)
    (row,) = lab.json("autoscale", "ls", "-p", stack.name, "--format", "json")
    assert row["min"] == 0


def test_requests_by_ingress_bring_replicas(stack: Stack, lab: Pystack) -> None:
    stack.up(WEB)
    with asking(lab):
        eventually(lambda: running(stack, 3), 120)
        (row,) = lab.json("autoscale", "ls", "-p", stack.name, "--format", "json")
        assert row["target"] == "rps 10"
    assert "rps is" in lab("why-not", "-p", stack.name, "web").stdout
    eventually(lambda: running(stack, 1), 120)
