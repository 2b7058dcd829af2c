"""A Prometheus of the cluster's own, on three nodes: what it sees, and who is let in to the server where it asks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Debian's prometheus: `make setup`")
WEB = """
services:
  web:
    image: busybox
    command: sh -c 'echo mine 7 > /tmp/metrics; exec httpd -f -p 80 -h /tmp'
    stop_signal: SIGKILL
    x-metrics: {port: 80}
    deploy: {replicas: 2}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(3) as pystack:
        yield pystack


def ask(lab: Pystack, path: str, node: str = "n2") -> Any:
    return json.loads(lab.on(node, "curl", "-sS", "-m", "10", f"http://127.0.0.1:9090/api/v1/{path}"))["data"]


def seen(lab: Pystack, query: str, node: str = "n2") -> dict[str, float]:
    """The values that *query* has now in the Prometheus on *node*, by the label `instance`."""
    found = ask(lab, f"query?query={quote(query)}", node)["result"]
    return {one["metric"].get("instance", ""): float(one["value"][1]) for one in found}


def test_one_command_and_everything_is_seen(stack: Stack, lab: Pystack) -> None:
    lab("monitoring", "up", "--constraint", "node.hostname==n2", "--interval", "1s")
    stack.up(WEB)

    def all_up() -> None:
        up = {(t["labels"]["job"], t["labels"]["instance"]): t["health"] for t in ask(lab, "targets")["activeTargets"]}
        assert set(up.values()) == {"up"}, ask(lab, "targets")["activeTargets"]
        jobs = [job for job, _ in up]
        assert (jobs.count("pystack"), jobs.count("nodes"), jobs.count("tasks")) == (1, 3, 2), up
        assert {instance for job, instance in up if job == "nodes"} == {"n1", "n2", "n3"}

    eventually(all_up, 60)
    eventually(lambda: _is(list(seen(lab, "mine").values()), [7.0, 7.0]), 30)
    eventually(lambda: _is(seen(lab, f'pystack_tasks_running{{stack="{stack.name}"}}'), {"10.99.0.1:9464": 2.0}), 30)
    of = f'container_memory_usage_bytes{{container_label_com_docker_compose_project="{stack.name}"}}'
    eventually(lambda: _is(len(ask(lab, f"query?query={quote(of)}")["result"]), 2), 30)
    rules = [rule["name"] for group in ask(lab, "rules")["groups"] for rule in group["rules"]]
    assert "PystackNodeDown" in rules
    assert lab.on("n2", "curl", "-sSL", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9090/graph") == "200"
    assert lab.json("token", "ls", "--format", "json")[0]["role"] == "viewer"
    again = lab("monitoring", "up", "--constraint", "node.hostname==n2", "--interval", "1s")
    assert "created" not in again.stderr + again.stdout
    assert "restart" not in again.stderr + again.stdout


def _is(found: object, wanted: object) -> None:
    assert found == wanted


def test_the_server_says_nothing_there_without_a_token(lab: Pystack) -> None:
    lab("monitoring", "up", "--constraint", "node.hostname==n2", "--interval", "1s")
    for path in ("/metrics", "/v1/sd/nodes", "/v1/stacks", "/v1/store"):
        told = lab.on("outside", "curl", "-sSk", "-w", "%{http_code}", f"https://10.99.0.1:9464{path}")
        assert told.endswith("401"), told
    viewer = lab("token", "create", "eye", "--role", "viewer").stdout.strip()
    token = ("-H", f"Authorization: Bearer {viewer}")
    there = json.loads(lab.on("outside", "curl", "-sSk", *token, "https://10.99.0.1:9464/v1/sd/nodes"))
    assert [group["targets"] for group in there] == [["10.99.0.1:9464"]] * 3
    assert lab.on("outside", "curl", "-sSk", "-w", "%{http_code}", *token, "https://10.99.0.1:9464/v1/store").endswith("403")
    assert "alert unknown ca" in _unknown(lab) or "certificate" in _unknown(lab)
    lab("token", "rm", "eye")


def _unknown(lab: Pystack) -> str:
    return lab.on("outside", "sh", "-c", "curl -sS https://10.99.0.1:9464/metrics 2>&1 || true")


def test_it_goes_with_one_command_and_its_door_is_closed(lab: Pystack) -> None:
    lab("monitoring", "up", "--constraint", "node.hostname==n2", "--interval", "1s")
    lab("monitoring", "rm", "-v")
    assert "9464" not in lab.on("n1", "ss", "-ltn")
    assert lab.json("token", "ls", "--format", "json") == []
    assert "monitoring" not in lab("volume", "ls").stdout
    assert "no Prometheus of its own" in lab("monitoring", "rm", check=False).stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "9090"), "write ADDRESS:PORT"),
        (("--listen", "127.0.0.1:99999"), "write ADDRESS:PORT"),
        (("--retention", "a week"), "write 15d or 30s"),
        (("--alertmanager", "http://x"), "write ADDRESS:PORT"),
        (("--constraint", "node.hostname==n9"), "n9"),
    ],
)
def test_what_cannot_be_is_said(lab: Pystack, options: tuple[str, ...], words: str) -> None:
    refused = lab("monitoring", "up", *options, check=False)
    assert refused.returncode != 0
    assert words in refused.stderr, refused.stderr


@pytest.mark.long
@pytest.mark.etcd
def test_the_server_that_leads_next_is_asked() -> None:
    with cluster_of(3, servers=3) as lab:
        lab("monitoring", "up", "--constraint", "node.hostname==n3", "--interval", "1s")

        def leader(answering: int) -> str:
            found = seen(lab, "pystack_leader == 1", "n3")
            assert len(found) == 1, found
            assert len(seen(lab, 'up{job="nodes"} == 1', "n3")) >= answering
            return next(iter(found))

        before = eventually(lambda: leader(3), 60)
        # one that is killed begins anew, and may lead again
        lab("lab", "fault", "--name", lab.lab, "pause", "leader")
        eventually(lambda: _is(leader(2) != before, True), 120)
