"""`GET /metrics` of a node: what its containers use, under cAdvisor's names and labels, so that dashboards made for it work.

Source: cAdvisor, docs/storage/prometheus.md; OpenMetrics 1.0. Counters are read when somebody asks, in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from agent.api.app_keys import CONVERGER, ENGINE
from agent.containers import usage
from agent.contract.times import seconds_of
from agent.contract.timings import Histogram
from agent.contract.version import VERSION
from agent.engine.engine import Engine
from agent.volumes.use import Use

if TYPE_CHECKING:  # who is never scraped does not load the library
    from prometheus_client.core import Metric

routes = web.RouteTableDef()
LABELS = ("id", "name", "image", "container_label_com_docker_compose_project", "container_label_com_docker_compose_service")


class Scraped(NamedTuple):
    """A container that runs: its values of LABELS, of which the first is its control group; the first process; its limit of
    memory in bytes, 0 for none; when it was started, in seconds since 1970."""

    labels: tuple[str, ...]
    pid: int
    memory: int
    started: float


class Own(NamedTuple):
    """What is read beside containers: what the resolver counted (*names*, by COUNTS of `netplugins.resolver.server`), the
    folder *root* of the agent's state, what *volumes* hold, how many endpoints of other nodes overlays know (*far*), and how
    long *steps* took."""

    names: Mapping[str, float]
    root: str
    volumes: Sequence[Use] = ()
    far: Mapping[str, int] = {}
    steps: Mapping[str, Histogram] = {}


class Sample(NamedTuple):
    """A container, and Docker's statistics of it."""

    of: Scraped
    used: dict[str, Any]


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """What the containers of this node use, in OpenMetrics or in Prometheus' older format, as the client accepts."""
    engine = request.app[ENGINE]
    scraped, names = running(engine), await engine.networks.dataplane.counts()
    steps = {**request.app[CONVERGER].timings, "network": engine.networks.timing}
    own = Own(names, str(engine.paths.root), engine.volume_use.look(), engine.networks.far_endpoints(), steps)
    body, kind = await asyncio.to_thread(lambda: encoded(read(scraped), own, request.headers.get("Accept", "")))
    return web.Response(body=body, headers={"Content-Type": kind})


def running(engine: Engine) -> list[Scraped]:
    """The containers of *engine* that run."""
    out = []
    for record in engine.containers.records.values():
        if not record.running or not record.process:
            continue
        group = f"{engine.context.cgroup_parent(record)}/{record.id}"
        labels = (group, record.name, record.image or record.container.image, record.stack, record.service)
        started = seconds_of(record.started) if record.started else 0.0
        out.append(Scraped(labels, record.process.pid, record.container.memory, started))
    return out


def read(scraped: Iterable[Scraped]) -> list[Sample]:
    """What each of *scraped* uses, those left out that have ended meanwhile."""
    samples = [Sample(one, usage.read(one.labels[0], one.pid)) for one in scraped]
    return [s for s in samples if Path(f"/proc/{s.of.pid}").exists()]


def encoded(samples: Sequence[Sample], own: Own, accept: str) -> tuple[bytes, str]:
    """The families for *samples* and *own* as text, and its content type: OpenMetrics where the header *accept* has it."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector

    class Made(Collector):
        """Families as prometheus_client asks for them."""

        def collect(self) -> Iterable[Metric]:
            """The families."""
            return itertools.chain(families(samples), own_families(own))

    registry = CollectorRegistry()
    registry.register(Made())
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


def families(samples: Sequence[Sample]) -> Iterator[Metric]:
    """The families of cAdvisor that hold for *samples*, of the machine, and of the agent."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    yield InfoMetricFamily("pystack_agent_build", "The agent that answers.", {"version": VERSION})
    yield GaugeMetricFamily("machine_cpu_cores", "Cores of the machine.", os.cpu_count() or 1)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield GaugeMetricFamily("machine_memory_bytes", "Memory of the machine.", memory)
    for name, text, part in (
        ("container_cpu_usage", "CPU time.", "total_usage"),
        ("container_cpu_user", "CPU time outside of the kernel.", "usage_in_usermode"),
        ("container_cpu_system", "CPU time in the kernel.", "usage_in_kernelmode"),
    ):
        family = CounterMetricFamily(name, text, labels=LABELS, unit="seconds")
        for one in samples:
            family.add_metric(one.of.labels, one.used["cpu_stats"]["cpu_usage"][part] / 1e9)
        yield family
    text = "Time for which it had used up its CPU."
    throttled = CounterMetricFamily("container_cpu_cfs_throttled", text, labels=LABELS, unit="seconds")
    for one in samples:
        throttled.add_metric(one.of.labels, one.used["cpu_stats"]["throttling_data"]["throttled_time"] / 1e9)
    yield throttled
    now = time.time()
    gauges = [_gauges(one, now) for one in samples]
    for name, text in GAUGES.items():
        gauge = GaugeMetricFamily(name, text, labels=LABELS)
        for one, values in zip(samples, gauges, strict=True):
            gauge.add_metric(one.of.labels, values[name])
        yield gauge
    yield from _network(samples)
    yield from _blocks(samples)
    yield from _pressure(samples)


def own_families(own: Own) -> Iterator[Metric]:
    """The families of the node's resolver, of its connections (node_exporter's names), and of the disk of the agent's state."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily

    asked = CounterMetricFamily("pystack_dns_queries", "Questions of containers, by what became of them.", labels=["outcome"])
    for outcome in ("answered", "forwarded", "refused", "malformed"):
        if outcome in own.names:
            asked.add_metric([outcome], own.names[outcome])
    yield asked
    if "forwarded" in own.names:
        text = "How long upstreams took."
        yield SummaryMetricFamily(
            "pystack_dns_upstream_seconds", text, int(own.names["forwarded"]), own.names["forwarded_seconds"]
        )
        text = "Questions that no upstream answered."
        yield CounterMetricFamily("pystack_dns_upstream_failures", text, own.names["forwarded_failed"])
    for name, file, text in (
        (
            "node_nf_conntrack_entries",
            "nf_conntrack_count",
            "Connections that the kernel follows, those of published ports too.",
        ),
        ("node_nf_conntrack_entries_limit", "nf_conntrack_max", "How many it can follow."),
    ):
        with contextlib.suppress(OSError):
            yield GaugeMetricFamily(name, text, int(Path("/proc/sys/net/netfilter", file).read_text()))
    disk = os.statvfs(own.root)
    yield GaugeMetricFamily(
        "pystack_disk_size_bytes", "The disk of images, containers and volumes.", disk.f_blocks * disk.f_frsize
    )
    yield GaugeMetricFamily("pystack_disk_free_bytes", "What is free of it.", disk.f_bavail * disk.f_frsize)
    space = GaugeMetricFamily("pystack_volume_used_bytes", "What the files of the volume take.", labels=["volume"])
    limit = GaugeMetricFamily("pystack_volume_limit_bytes", "What they may take, where it has a size.", labels=["volume"])
    for one in own.volumes:
        space.add_metric([one.volume], one.used)
        if one.limit:
            limit.add_metric([one.volume], one.limit)
    yield from (space, limit)
    fdb = GaugeMetricFamily("pystack_network_fdb_entries", "Endpoints on other nodes that it knows.", labels=["network"])
    for network, count in sorted(own.far.items()):
        fdb.add_metric([network], count)
    yield fdb
    text = "How long steps towards the manifest took: those of tasks, and the kernel's networks."
    steps = HistogramMetricFamily("pystack_reconcile_seconds", text, labels=["step"])
    for step, counted in sorted(own.steps.items()):
        steps.add_metric([step], counted.buckets(), counted.sum_s)
    yield steps


GAUGES = {
    "container_memory_usage_bytes": "Memory, the page cache included.",
    "container_memory_working_set_bytes": "Memory without what of the page cache is not in use.",
    "container_memory_rss": "Anonymous memory in bytes.",
    "container_memory_cache": "Page cache in bytes.",
    "container_spec_memory_limit_bytes": "The limit of its memory, 0 for none.",
    "container_start_time_seconds": "When it was started.",
    "container_last_seen": "When this was read, in seconds since 1970.",
    "container_processes": "Its processes.",
}


def _gauges(one: Sample, now: float) -> dict[str, float]:
    memory = one.used["memory_stats"]
    stats, used = memory.get("stats", {}), memory.get("usage", 0)

    def stat(*names: str) -> int:  # those of cgroup version 1, with all groups below, come first
        return next((int(stats[n]) for n in names if n in stats), 0)

    return {
        "container_memory_usage_bytes": used,
        "container_memory_working_set_bytes": max(0, used - stat("total_inactive_file", "inactive_file")),
        "container_memory_rss": stat("total_rss", "anon"),
        "container_memory_cache": stat("total_cache", "file"),
        "container_spec_memory_limit_bytes": one.of.memory,
        "container_start_time_seconds": one.of.started,
        "container_last_seen": now,
        "container_processes": one.used["pids_stats"].get("current", 0),
    }


def _network(samples: Sequence[Sample]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    for letter, direction, verb in (("r", "receive", "Received"), ("t", "transmit", "Sent")):
        for part, unit, kind in (
            ("", "bytes", "bytes"),
            ("_packets", "", "packets"),
            ("_errors", "", "errors"),
            ("_packets_dropped", "", "dropped"),
        ):
            text = f"{verb} at the interface: {kind}."
            labels = (*LABELS, "interface")
            family = CounterMetricFamily(f"container_network_{direction}{part}", text, labels=labels, unit=unit)
            for one in samples:
                for interface, counters in one.used["networks"].items():
                    family.add_metric((*one.of.labels, interface), counters[f"{letter}x_{kind}"])
            yield family


def _blocks(samples: Sequence[Sample]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    for unit, key in (("bytes", "io_service_bytes_recursive"), ("", "io_serviced_recursive")):
        for verb, word in (("reads", "read"), ("writes", "write")):
            text = f"{verb.capitalize()} of devices{', in bytes' if unit else ''}."
            family = CounterMetricFamily(f"container_fs_{verb}", text, labels=LABELS, unit=unit)
            for one in samples:
                rows = one.used["blkio_stats"][key] or ()
                family.add_metric(one.of.labels, sum(row["value"] for row in rows if row["op"] == word))
            yield family


def _pressure(samples: Sequence[Sample]) -> Iterator[Metric]:
    """How long containers waited; no family where the kernel does not count it."""
    from prometheus_client.core import CounterMetricFamily

    known = [(one.of.labels, pressure) for one in samples if (pressure := one.used.get("pressure"))]
    for kind in ("cpu", "memory", "io") if known else ():
        for word, who, text in (("waiting", "some", "some of its processes"), ("stalled", "full", "all of its processes")):
            name = f"container_pressure_{kind}_{word}"
            family = CounterMetricFamily(name, f"Time that {text} waited for {kind}.", labels=LABELS, unit="seconds")
            for labels, pressure in known:
                if who in pressure[kind]:
                    family.add_metric(labels, pressure[kind][who]["total"] / 1e6)
            yield family
