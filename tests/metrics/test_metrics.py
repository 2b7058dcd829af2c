"""Metrics for Prometheus: which targets there are, and that its own programs take the metrics and the rules."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import parser
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.samples import Sample as Value

from agent.api import metrics as node
from agent.contract.container import Attachment, Container
from agent.contract.network import Network, Subnet
from agent.contract.status import NodeInfo, TaskStatus
from agent.contract.task import Task
from agent.contract.timings import Histogram
from agent.paths import Paths
from agent.volumes.use import Use, VolumeUse
from agent.volumes.volumes import Volumes
from orchestrator.metrics.discovery import targets
from orchestrator.metrics.families import encoded, task_families
from orchestrator.metrics.rules import PANELS, alerts, dashboard
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.node import Node
from orchestrator.planning.expand import expand
from orchestrator.planning.state import State
from orchestrator.stackfile.model import MetricsEndpoint, Service, Stack, StackNetwork

NETWORKS = {"net": Network(name="net", driver="overlay", subnets=(Subnet(cidr="10.5.0.0/24"),))}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs Debian's prometheus: `make setup`")


def task(name: str, service: str, container: Container | None = None, **fields: Any) -> Task:
    made = container or Container(image="i", attachments=(Attachment(network="net", ipv4="10.5.0.7"),))
    return Task(name=name, stack="s", service=service, node="n1", container=made, **fields)


def values(text: bytes, kind: str) -> dict[str, list[Value]]:
    """The samples by name, as Prometheus' own library reads them."""
    read = openmetrics.text_string_to_metric_families if "openmetrics" in kind else parser.text_string_to_metric_families
    out: dict[str, list[Value]] = {}
    for family in read(text.decode()):
        for sample in family.samples:
            out.setdefault(sample.name, []).append(sample)
    return out


def promtool(text: bytes) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_tasks_with_metrics_are_targets() -> None:
    web = Service(name="web", container=Container(image="i"), where="w", metrics=MetricsEndpoint(port=9090, path="/m"))
    other = Service(name="db", container=Container(image="i"), where="w")
    on_host = Container(image="i", network_mode="host")
    in_v6 = Container(image="i", attachments=(Attachment(network="net", ipv6="fd00::7"),))
    tasks = [
        task("s-web-1", "web"),
        task("s-db-1", "db"),
        task("s-web-2", "web", on_host),
        task("s-web-3", "web", in_v6),
        task("s-web-4", "web", desired="stopped"),
    ]
    found = targets([Stack(name="s", services=(web, other))], tasks, NETWORKS, {"n1": "192.0.2.1"})
    assert [g.targets for g in found] == [("10.5.0.7:9090",), ("192.0.2.1:9090",), ("[fd00::7]:9090",)]
    assert found[0].labels == {"__metrics_path__": "/m", "task": "s-web-1", "stack": "s", "service": "web", "node": "n1"}


def test_prometheus_has_a_way_to_targets_from_every_node() -> None:
    nodes = tuple(
        Node(name=f"n{i}", id=f"n{i}", underlay=f"192.0.2.{i}", info=NodeInfo(cpus=4, memory=1 << 33)) for i in (1, 2)
    )
    context = PlacementContext(nodes=nodes, ready=frozenset({"n1", "n2"}), local="n1")
    on = Container(image="i", attachments=(Attachment(network="s_net"),))

    def carriers(metrics: MetricsEndpoint | None) -> set[str]:
        web = Service(name="web", container=on, where="w", metrics=metrics)
        stack = Stack(name="s", services=(web,), networks=(StackNetwork(key="net", name="s_net", driver="overlay"),))
        (network,) = expand(stack, State(), context=context).networks
        return {host.name for host in network.hosts}

    assert len(carriers(None)) == 1
    assert carriers(MetricsEndpoint(port=9090)) == {"n1", "n2"}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_tasks_are_counted_by_service(accept: str) -> None:
    tasks = [task(f"s-web-{n}", "web") for n in range(4)]
    tasks += [task("s-db-1", "db", desired="stopped"), task("s-job-1", "job"), task("s-run-1", "web", desired="oneoff")]
    statuses = [
        TaskStatus(task="s-web-0", state="running", health="unhealthy", restarts=2),
        TaskStatus(task="s-web-1", state="failed", restarts=3),
        TaskStatus(task="s-web-2", state="exited", exit_code=1),
        TaskStatus(task="s-job-1", state="exited", exit_code=0),
        TaskStatus(task="s-run-1", state="running"),
    ]
    found = values(*encoded(list(task_families(tasks, {s.task: s for s in statuses})), accept))
    counted = {name: {s.labels["service"]: s.value for s in samples} for name, samples in found.items()}
    assert counted == {
        "pystack_tasks_wanted": {"web": 4, "db": 0, "job": 0},
        "pystack_tasks_running": {"web": 1, "db": 0, "job": 0},
        "pystack_tasks_failed": {"web": 2, "db": 0, "job": 0},
        "pystack_tasks_unhealthy": {"web": 1, "db": 0, "job": 0},
        "pystack_task_restarts": {"web": 5, "db": 0, "job": 0},
    }


def sample(name: str = "web", pid: int = 0) -> node.Sample:
    """A container with known values; its image's name has all that a label's value escapes."""
    counters = {
        f"{d}x_{k}": n for n, (d, k) in enumerate((d, k) for d in "rt" for k in ("bytes", "packets", "errors", "dropped"))
    }
    used = {
        "cpu_stats": {
            "cpu_usage": {"total_usage": 3 * 10**9, "usage_in_usermode": 10**9, "usage_in_kernelmode": 2 * 10**9},
            "throttling_data": {"periods": 9, "throttled_periods": 1, "throttled_time": 5 * 10**8},
        },
        "memory_stats": {"usage": 100, "stats": {"inactive_file": 30, "anon": 60, "file": 40}},
        "pids_stats": {"current": 4},
        "blkio_stats": {
            "io_service_bytes_recursive": [{"op": "read", "value": 5}, {"op": "read", "value": 6}, {"op": "write", "value": 1}],
            "io_serviced_recursive": None,
        },
        "networks": {"eth0": counters},
    }
    return node.Sample(node.Scraped((f"/pystack/{name}", name, 'i"\\\n', "s", "web"), pid, 1000, 5.0), used)


OWN = node.Own(
    {"answered": 5.0, "malformed": 1.0, "refused": 0.0, "forwarded": 4.0, "forwarded_failed": 2.0, "forwarded_seconds": 0.5},
    "/",
)


def test_a_node_tells_of_its_resolver_and_its_disk() -> None:
    found = values(*node.encoded([], OWN, OPENMETRICS))
    asked = {s.labels["outcome"]: s.value for s in found["pystack_dns_queries_total"]}
    assert asked == {"answered": 5, "malformed": 1, "refused": 0, "forwarded": 4}
    for name, value in (
        ("pystack_dns_upstream_seconds_count", 4),
        ("pystack_dns_upstream_seconds_sum", 0.5),
        ("pystack_dns_upstream_failures_total", 2),
    ):
        assert found[name][0].value == value
    assert 0 < found["pystack_disk_free_bytes"][0].value < found["pystack_disk_size_bytes"][0].value
    silent = values(*node.encoded([], node.Own({}, "/"), OPENMETRICS))
    assert not silent.keys() & {"pystack_dns_queries_total", "pystack_dns_upstream_seconds_count"}, "of an older data path"


def test_a_node_tells_of_its_volumes_overlays_and_steps() -> None:
    counted = Histogram()
    counted.add(0.02)
    own = node.Own({}, "/", [Use("data", 5000, 0), Use("small", 10, 1 << 20)], {"net": 3}, {"create": counted})
    found = values(*node.encoded([], own, OPENMETRICS))
    assert {s.labels["volume"]: s.value for s in found["pystack_volume_used_bytes"]} == {"data": 5000, "small": 10}
    assert {s.labels["volume"]: s.value for s in found["pystack_volume_limit_bytes"]} == {"small": 1 << 20}
    assert [(s.labels["network"], s.value) for s in found["pystack_network_fdb_entries"]] == [("net", 3)]
    (count,) = found["pystack_reconcile_seconds_count"]
    assert (count.labels, count.value) == ({"step": "create"}, 1)


async def test_what_volumes_hold_is_counted_in_the_background(tmp_path: Path) -> None:
    volumes = Volumes(Paths(tmp_path / "root", tmp_path / "run", "abcd"))
    volumes.create("data")
    volumes.create("other", driver="local", options={"type": "nfs", "o": "addr=10.9.9.9", "device": ":/x"})
    (volumes.data("data") / "file").write_bytes(b"x" * 5000)
    (volumes.data("data") / "same").hardlink_to(volumes.data("data") / "file")
    use = VolumeUse(volumes)
    assert use.look() == [], "nothing was counted yet, and nobody waits for it"
    for _ in range(200):
        await asyncio.sleep(0.05)
        if use.look():
            break
    assert use.look() == [Use("data", 5000, 0)], "that of the other volume is on another host"
    (volumes.data("data") / "more").write_bytes(b"x" * 100)
    assert use.look() == [Use("data", 5000, 0)], "it is not counted again at each look"
    await use.close()


def test_a_histogram_counts_each_bucket_with_those_below() -> None:
    counted = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        counted.add(seconds)
    with pytest.raises(ZeroDivisionError), counted.timed():
        _ = 1 / 0
    family = HistogramMetricFamily("t_seconds", "T.", labels=["a"])
    family.add_metric(["x"], counted.buckets(), counted.sum_s)
    found = values(*encoded([family], OPENMETRICS))
    assert {s.labels["le"]: s.value for s in found["t_seconds_bucket"]} == {"0.1": 3, "1.0": 4, "+Inf": 5}
    assert found["t_seconds_count"][0].value == 5
    assert 7.65 <= found["t_seconds_sum"][0].value < 8


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_metrics_of_containers_have_cadvisors_names(accept: str) -> None:
    found = values(*node.encoded([sample()], OWN, accept))
    for name, value in (
        ("container_cpu_usage_seconds_total", 3),
        ("container_cpu_system_seconds_total", 2),
        ("container_cpu_cfs_throttled_seconds_total", 0.5),
        ("container_memory_usage_bytes", 100),
        ("container_memory_working_set_bytes", 70),
        ("container_memory_rss", 60),
        ("container_spec_memory_limit_bytes", 1000),
        ("container_start_time_seconds", 5),
        ("container_network_receive_bytes_total", 0),
        ("container_network_receive_packets_dropped_total", 3),
        ("container_network_transmit_bytes_total", 4),
        ("container_fs_reads_bytes_total", 11),
        ("container_fs_writes_total", 0),
        ("container_processes", 4),
    ):
        (one,) = found[name]
        assert one.value == value, name
        assert set(node.LABELS) <= set(one.labels)
        assert one.labels["image"] == 'i"\\\n'
    assert found["container_network_receive_bytes_total"][0].labels["interface"] == "eth0"
    assert found["pystack_agent_build_info"][0].value == 1


def test_a_container_that_has_ended_is_left_out() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    read = node.read([sample(pid=ended.pid).of, sample(pid=os.getpid()).of])
    assert [s.of.pid for s in read] == [os.getpid()]


@needs_promtool
def test_promtool_takes_the_metrics() -> None:
    promtool(node.encoded([sample("a"), sample("b")], OWN, "")[0])
    status = TaskStatus(task="s-web-1", state="running")
    promtool(encoded(list(task_families([task("s-web-1", "web")], {"s-web-1": status})), "")[0])


def fires(name: str, minute: str, labels: dict[str, str], *series: tuple[str, str]) -> dict[str, Any]:
    """A case of `promtool test rules`: the alert *name* does not fire at once, and does at *minute*."""
    alert = next(r for g in alerts()["groups"] for r in g["rules"] if r["alert"] == name)
    told = alert["annotations"]["summary"]
    for key, value in labels.items():
        told = told.replace(f"{{{{ $labels.{key} }}}}", value)
    wanted = {
        "exp_labels": {**alert["labels"], **labels},
        "exp_annotations": {"summary": told.replace("{{ $value }}", "2")},
    }
    return {
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in series],
        "alert_rule_test": [
            {"eval_time": "0m", "alertname": name, "exp_alerts": []},
            {"eval_time": minute, "alertname": name, "exp_alerts": [wanted]},
        ],
    }


@needs_promtool
def test_prometheus_takes_the_rules_and_they_fire(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(json.dumps(alerts()))
    subprocess.run(["promtool", "check", "rules", rules], check=True, capture_output=True)

    web, of = {"stack": "s", "service": "web"}, '{stack="s",service="web"}'
    certificate = 'pystack_certificate_expiry_timestamp_seconds{host="a.org",issuer="acme"}'
    missing = fires(
        "PystackTasksMissing", "9m", web, (f"pystack_tasks_wanted{of}", "3x10"), (f"pystack_tasks_running{of}", "1x10")
    )
    well = {
        "interval": "1m",
        "input_series": [{"series": f"pystack_tasks_{k}{of}", "values": "3x10"} for k in ("wanted", "running")],
        "alert_rule_test": [{"eval_time": "9m", "alertname": "PystackTasksMissing", "exp_alerts": []}],
    }
    cases = [
        fires("PystackNodeDown", "5m", {"node": "n1"}, ('pystack_node_up{node="n1"}', "0x10")),
        missing,
        well,
        fires("PystackTasksUnhealthy", "9m", web, (f"pystack_tasks_unhealthy{of}", "2x10")),
        fires("PystackTasksRestart", "15m", web, (f"pystack_task_restarts{of}", "0+1x20")),
        fires("PystackCertificateEnds", "15m", {"host": "a.org", "issuer": "acme"}, (certificate, "86400x20")),
        fires("PystackProxyNotReady", "9m", {"task": "p"}, ('pystack_ingress_proxy_ready{task="p"}', "0x10")),
        fires(
            "PystackVolumeFull",
            "9m",
            {"volume": "data", "instance": "n1"},
            ('pystack_volume_used_bytes{volume="data",instance="n1"}', "95x10"),
            ('pystack_volume_limit_bytes{volume="data",instance="n1"}', "100x10"),
        ),
        fires(
            "PystackDiskFull",
            "9m",
            {"instance": "n1"},
            ('pystack_disk_free_bytes{instance="n1"}', "5x10"),
            ('pystack_disk_size_bytes{instance="n1"}', "100x10"),
        ),
        fires(
            "PystackStoreSlow",
            "14m",
            {"operation": "transact"},
            ('pystack_store_operation_seconds_sum{operation="transact"}', "0+60x20"),
            ('pystack_store_operation_seconds_count{operation="transact"}', "0+60x20"),
        ),
    ]
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": cases}))
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_configuration_of_the_guide(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/guide/metrics.md").read_text()
    (tmp_path / "prometheus.yml").write_text(text.split("```yml\n")[1].split("```")[0])
    (tmp_path / "pystack-rules.json").write_text(json.dumps(alerts()))
    command = ["promtool", "check", "config", "--syntax-only", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_has_all_panels() -> None:
    made = dashboard()
    assert [p["targets"][0]["expr"] for p in made["panels"]] == [expression for _, expression, _ in PANELS]
    assert len({(p["gridPos"]["x"], p["gridPos"]["y"]) for p in made["panels"]}) == len(PANELS)
