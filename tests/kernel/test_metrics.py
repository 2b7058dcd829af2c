"""Metrics of a server and of its node, as Prometheus' own programs read them, and the targets of a stack."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from tests.conftest import Pystack, Stack, eventually

pytestmark = pytest.mark.kernel
WEB = """
services:
  web:
    image: busybox
    command: sh -c 'printf seventy > /data/file; echo up 1 > /tmp/metrics; exec httpd -f -p 80 -h /tmp'
    stop_signal: SIGKILL
    mem_limit: 64m
    volumes: [data:/data]
    x-metrics: {port: 80}
volumes: {data: {}}
"""


def ask(lab: Pystack, path: str, accept: str = "text/plain") -> str:
    """What the server answers, at the socket that its clients use."""
    socket = lab.environment["PYSTACK_HOST"].removeprefix("unix://")
    command = ["curl", "-sSf", "-H", f"Accept: {accept}", "--unix-socket", socket, f"http://localhost{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _is(found: float, wanted: float) -> None:
    assert found == wanted


def value(text: str, name: str, **labels: str) -> float:
    read = openmetrics if text.rstrip().endswith("# EOF") else parser
    found = [s for f in read.text_string_to_metric_families(text) for s in f.samples if s.name == name]
    (one,) = [s for s in found if labels.items() <= s.labels.items()]
    return float(one.value)


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs Debian's prometheus: `make setup`")
def test_prometheus_reads_servers_nodes_and_tasks(stack: Stack, lab: Pystack) -> None:
    stack.up(WEB)
    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        cluster, node = ask(lab, "/metrics", accept), ask(lab, "/v1/nodes/local/engine/metrics", accept)
        assert value(cluster, "pystack_tasks_wanted", stack=stack.name, service="web") == 1
        assert value(cluster, "pystack_tasks_running", stack=stack.name, service="web") == 1
        assert value(cluster, "pystack_leader") == 1
        of = {"container_label_com_docker_compose_project": stack.name, "container_label_com_docker_compose_service": "web"}
        assert value(node, "container_cpu_usage_seconds_total", **of) > 0
        assert value(node, "container_memory_usage_bytes", **of) > 0
        assert value(node, "container_spec_memory_limit_bytes", **of) == 64 << 20
        assert value(node, "container_processes", **of) >= 1
    before = value(ask(lab, "/v1/nodes/local/engine/metrics"), "pystack_dns_queries_total", outcome="answered")
    stack.exec("web", "nslookup", "web")
    assert value(ask(lab, "/v1/nodes/local/engine/metrics"), "pystack_dns_queries_total", outcome="answered") > before
    assert value(ask(lab, "/v1/nodes/local/engine/metrics"), "node_nf_conntrack_entries_limit") > 0
    assert value(ask(lab, "/metrics"), "pystack_store_operation_seconds_count", operation="transact") > 0
    assert value(ask(lab, "/metrics"), "pystack_plan_seconds_count") > 0
    for step in ("create", "start", "network"):
        assert value(ask(lab, "/v1/nodes/local/engine/metrics"), "pystack_reconcile_seconds_count", step=step) > 0
    of = {"volume": f"{stack.name}_data"}
    eventually(lambda: _is(value(ask(lab, "/v1/nodes/local/engine/metrics"), "pystack_volume_used_bytes", **of), 7.0))
    assert value(ask(lab, "/metrics"), "pystack_rollout_duration_seconds", stack=stack.name) > 0
    for text in (ask(lab, "/metrics"), ask(lab, "/v1/nodes/local/engine/metrics")):
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    (group,) = [g for g in json.loads(ask(lab, "/v1/sd")) if g["labels"]["stack"] == stack.name]
    (target,) = group["targets"]
    scraped = stack.exec("web", "wget", "-qO-", f"http://{target}{group['labels']['__metrics_path__']}")
    assert scraped == "up 1\n"
    stack.down()
    left = [line for line in ask(lab, "/metrics").splitlines() if stack.name in line and "rollout" not in line]
    assert left == [], "its last rollout is on record"
    assert stack.name not in ask(lab, "/v1/nodes/local/engine/metrics")
    assert [g for g in json.loads(ask(lab, "/v1/sd")) if g["labels"]["stack"] == stack.name] == []
