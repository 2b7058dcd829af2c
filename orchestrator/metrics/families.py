"""Metrics of the cluster, as the server that leads has it in memory. Reads only.

Source: Prometheus, "Metric and label naming".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from agent.contract.status import TaskStatus
from agent.contract.task import Task
from agent.contract.times import seconds_of
from orchestrator import __version__
from orchestrator.gitops.gitops import Gitops
from orchestrator.gitops.model import SyncState
from orchestrator.ingress.controller import Ingress
from orchestrator.server.plane import ControlPlane
from orchestrator.server.rollouts.records import RolloutRecord

TASK_LABELS = ("stack", "service")
Key = TypeVar("Key", bound=tuple[str, ...])


class _Made(Collector):
    """Families that are there already, as prometheus_client asks for them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def encoded(families: Sequence[Metric], accept: str) -> tuple[bytes, str]:
    """*families* as text, and its content type: OpenMetrics where the header *accept* has it, else Prometheus' older format."""
    registry = CollectorRegistry()
    registry.register(_Made(families))
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


def families(plane: ControlPlane, ingress: Ingress, gitops: Gitops) -> Iterator[Metric]:
    """All families of `GET /metrics`."""
    yield InfoMetricFamily("pystack_build", "The server that answers.", {"version": __version__, "node": plane.node})
    yield _gauge("pystack_leader", "1 for the server that leads: no other answers.", ("node",), {(plane.node,): 1.0})
    yield from _nodes(plane)
    yield from task_families(plane.state.tasks.values(), plane.statuses.by_task)
    yield from _stacks(plane)
    yield from _networks(plane)
    yield from _ingress(ingress)
    yield from _times(plane)
    yield from _rollouts(plane.rollouts.records)
    yield from _gitops({name: r.state for name, r in gitops.reconcilers.items()})


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[Key, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _nodes(plane: ControlPlane) -> Iterator[Metric]:
    members = plane.cluster.members
    placed = Counter(t.node for t in plane.state.tasks.values())
    info = {(n,): m.node.info for n, m in members.items()}
    for name, text, values in (
        ("pystack_node_up", "Whether the node answers.", {(n,): float(m.ready) for n, m in members.items()}),
        ("pystack_node_tasks", "Tasks that are placed on the node.", {(n,): float(placed[n]) for n in members}),
        ("pystack_node_cpus", "Cores of the node.", {k: float(i.cpus) for k, i in info.items()}),
        ("pystack_node_memory_bytes", "Memory of the node.", {k: float(i.memory) for k, i in info.items()}),
    ):
        yield _gauge(name, text, ("node",), values)


def task_families(tasks: Iterable[Task], statuses: Mapping[str, TaskStatus]) -> Iterator[Metric]:
    """How many of *tasks* are to run, and how they are, by service. *statuses* are by the names of tasks. One whose program
    ended well is not to run any more."""
    counts: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in ("wanted", "running", "failed", "unhealthy")}
    restarts: Counter[tuple[str, ...]] = Counter()
    for task in tasks:
        if not task.planned:
            continue
        key, status = (task.stack, task.service), statuses.get(task.name)
        state = status.state if status else "pending"
        ended_well = state == "exited" and status is not None and status.exit_code == 0
        counts["wanted"][key] += task.desired == "running" and not ended_well
        counts["running"][key] += state == "running"
        ended_badly = state == "exited" and not ended_well and task.desired == "running"  # not by a stop that takes a signal
        counts["failed"][key] += state == "failed" or ended_badly
        counts["unhealthy"][key] += status is not None and status.health == "unhealthy"
        restarts[key] += status.restarts if status else 0
    texts = ("Tasks that are to run.", "Tasks that run.", "Tasks that failed.", "Tasks whose health check fails.")
    for (name, values), text in zip(counts.items(), texts, strict=True):
        yield _gauge(f"pystack_tasks_{name}", text, TASK_LABELS, values)
    yield _gauge("pystack_task_restarts", "Restarts of its tasks since they last ran for a while.", TASK_LABELS, restarts)


def _stacks(plane: ControlPlane) -> Iterator[Metric]:
    records = plane.state.stacks.items()
    yield _gauge("pystack_stack_revision", "The present revision.", ("stack",), {(n,): float(r.revision) for n, r in records})
    times = {(n,): seconds_of(r.updated) for n, r in records if r.updated}
    yield _gauge("pystack_stack_updated_timestamp_seconds", "When it was applied.", ("stack",), times)


def _networks(plane: ControlPlane) -> Iterator[Metric]:
    ends = Counter(a.network for t in plane.state.tasks.values() for a in t.container.attachments)
    values = {(n,): float(ends[n]) for n in plane.state.networks}
    yield _gauge("pystack_network_endpoints", "Tasks on the network.", ("network",), values)


def _ingress(ingress: Ingress) -> Iterator[Metric]:
    known = {(host, one.issuer): one for host, one in ingress.certificates.known.items()}
    of_host, text = ("host", "issuer"), "When the certificate ends."
    times = {k: c.not_after for k, c in known.items() if c.secret}
    yield _gauge("pystack_certificate_expiry_timestamp_seconds", text, of_host, times)
    failures = {k: float(c.failures) for k, c in known.items()}
    yield _gauge("pystack_certificate_failures", "Tries in a row that failed.", of_host, failures)
    ready = {(name,): float(bool(p.digest) and not p.problem) for name, p in ingress.proxies.items()}
    yield _gauge("pystack_ingress_proxy_ready", "Whether the proxy has its configuration.", ("task",), ready)
    text = "Requests that proxies forwarded, by the status of the answer, 0 for none."
    requests = CounterMetricFamily("pystack_ingress_requests", text, labels=["host", "code"])
    for (host, status), count in sorted(ingress.requests.counts.by_status.items()):
        requests.add_metric([host, str(status)], count)
    yield requests
    text = "How long until the answer began."
    seconds = HistogramMetricFamily("pystack_ingress_request_seconds", text, labels=["host"])
    for host, counted in sorted(ingress.requests.counts.seconds.items()):
        seconds.add_metric([host], counted.buckets(), counted.sum_s)
    yield seconds


def _times(plane: ControlPlane) -> Iterator[Metric]:
    yield _gauge("pystack_leader_since_timestamp_seconds", "When it began to lead.", ("node",), {(plane.node,): plane.began})
    text = "How long operations of the store took."
    store = HistogramMetricFamily("pystack_store_operation_seconds", text, labels=["operation"])
    for operation, counted in sorted(plane.timings.items()):
        store.add_metric([operation], counted.buckets(), counted.sum_s)
    yield store
    plans = HistogramMetricFamily("pystack_plan_seconds", "How long plans took to make, placement included.", labels=[])
    plans.add_metric([], plane.planner.timing.buckets(), plane.planner.timing.sum_s)
    yield plans


def _rollouts(records: Mapping[str, RolloutRecord]) -> Iterator[Metric]:
    """Of each stack its last one."""
    ended = {(n, r.state): max(0.0, r.ended - r.begun) for n, r in records.items() if r.ended}
    text = "How long the stack's last rollout took, by how it ended."
    yield _gauge("pystack_rollout_duration_seconds", text, ("stack", "state"), ended)
    running = {(n,): float(r.state in ("running", "paused")) for n, r in records.items()}
    yield _gauge("pystack_rollout_running", "Whether one goes on, or is paused.", ("stack",), running)


def _gitops(states: Mapping[str, SyncState]) -> Iterator[Metric]:
    """Of each repository that is followed."""
    newest = {(name, s.newest.phase): 1.0 for name, s in states.items() if s.newest}
    yield _gauge("pystack_gitops_state", "1 for what became of its newest commit.", ("repository", "state"), newest)
    problems = {(name,): float(bool(s.problem)) for name, s in states.items()}
    yield _gauge("pystack_gitops_unreachable", "Whether it cannot be fetched.", ("repository",), problems)
    drift = {(name,): float(len(s.drift)) for name, s in states.items()}
    yield _gauge("pystack_gitops_drift", "Differences from the commit that was applied.", ("repository",), drift)
    checked = {(name,): seconds_of(s.checked) for name, s in states.items() if s.checked}
    yield _gauge("pystack_gitops_checked_timestamp_seconds", "When it was last fetched.", ("repository",), checked)
