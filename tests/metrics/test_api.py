"""The routes of Prometheus are part of the server's API; a stand-by refuses metrics, and tells targets from memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.openmetrics import parser

from agent.contract.container import Attachment, Container
from agent.contract.network import Network, Subnet
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator import __version__
from orchestrator.gitops.gitops import Gitops
from orchestrator.gitops.model import Commit, Repo, SyncOutcome, SyncState
from orchestrator.gitops.reconciler import Reconciler
from orchestrator.ingress.controller import Ingress
from orchestrator.ingress.model import Certificate
from orchestrator.metrics.api import extension
from orchestrator.metrics.controller import Monitoring
from orchestrator.server.api.app import make_app
from orchestrator.server.api.extension import ApiExtension
from orchestrator.server.api.standby import StandbyState, make_standby_app
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import StackRecord, UpOptions
from orchestrator.server.rollouts.records import RolloutRecord
from orchestrator.stackfile.model import MetricsEndpoint, Service, Stack
from orchestrator.store.sqlite import SqliteStore

# agent/errors.py marks a request that has begun under a plain key
pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning")
ACCEPT = {"Accept": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture
async def ingress(tmp_path: Path) -> AsyncIterator[Ingress]:
    """Of a server that has a stack of one task in memory, and is connected to no node."""
    store = await SqliteStore.open(tmp_path / "store.db")
    plane = ControlPlane(store, "n1", tmp_path / "docker.sock", tmp_path / "run", tmp_path / "keys")
    await plane.state.load()
    on = Container(image="i", attachments=(Attachment(network="s_net", ipv4="10.5.0.7"),))
    web = Service(name="web", container=on, where="w", metrics=MetricsEndpoint(port=9090))
    plane.state.stacks["s"] = StackRecord(stack=Stack(name="s", services=(web,)), revision=3, updated="2026-01-01T00:00:00Z")
    plane.state.tasks["s-web-1"] = Task(name="s-web-1", stack="s", service="web", node="n1", container=on)
    plane.state.networks["s_net"] = Network(name="s_net", driver="overlay", subnets=(Subnet(cidr="10.5.0.0/24"),))
    plane.statuses.by_task["s-web-1"] = TaskStatus(task="s-web-1", state="running")
    plane.rollouts.records["s"] = RolloutRecord(
        id="1", stack=Stack(name="s"), options=UpOptions(), state="succeeded", begun=1000.0, ended=1004.5
    )
    made = Ingress(plane)
    made.certificates.known["a.org"] = Certificate(host="a.org", issuer="internal", secret="x", not_after=7.0)
    yield made
    await store.close()


def routes_of(ingress: Ingress) -> ApiExtension:
    gitops = Gitops(ingress.plane, Path(), Path())
    repo = Repo(name="shop", url="https://a.org/shop")
    outcome = SyncOutcome(commit=Commit(id="c", author="a", date="d", subject="s"), phase="failed", at="2026-01-01T00:00:00Z")
    state = SyncState(newest=outcome, problem="no route", drift=("one", "two"), checked="1970-01-01T00:01:00Z")
    gitops.reconcilers["shop"] = Reconciler(ingress.plane, repo, state, Path(), Path())
    return extension(ingress, Monitoring(ingress.plane, ingress, Path()), gitops)


async def test_a_server_that_leads_tells_what_it_knows(ingress: Ingress) -> None:
    async with TestClient(TestServer(make_app(ingress.plane, asyncio.Event(), [routes_of(ingress)]))) as client:
        reply = await client.get("/metrics", headers=ACCEPT)
        assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
        text = await reply.text()
        found = {s.name: s for family in parser.text_string_to_metric_families(text) for s in family.samples}  # type: ignore[no-untyped-call]
        assert found["pystack_build_info"].labels == {"version": __version__, "node": "n1"}
        of_service = {"stack": "s", "service": "web"}
        for name, labels, value in (
            ("pystack_leader", {"node": "n1"}, 1),
            ("pystack_tasks_wanted", of_service, 1),
            ("pystack_tasks_running", of_service, 1),
            ("pystack_tasks_failed", of_service, 0),
            ("pystack_stack_revision", {"stack": "s"}, 3),
            ("pystack_network_endpoints", {"network": "s_net"}, 1),
            ("pystack_certificate_expiry_timestamp_seconds", {"host": "a.org", "issuer": "internal"}, 7),
            ("pystack_leader_since_timestamp_seconds", {"node": "n1"}, ingress.plane.began),
            ("pystack_plan_seconds_count", {}, 0),
            ("pystack_rollout_duration_seconds", {"stack": "s", "state": "succeeded"}, 4.5),
            ("pystack_rollout_running", {"stack": "s"}, 0),
            ("pystack_gitops_state", {"repository": "shop", "state": "failed"}, 1),
            ("pystack_gitops_unreachable", {"repository": "shop"}, 1),
            ("pystack_gitops_drift", {"repository": "shop"}, 2),
            ("pystack_gitops_checked_timestamp_seconds", {"repository": "shop"}, 60),
        ):
            assert (found[name].labels, found[name].value) == (labels, value), name
        times = [s for f in parser.text_string_to_metric_families(text) for s in f.samples]  # type: ignore[no-untyped-call]
        counted = {s.labels["operation"]: s.value for s in times if s.name == "pystack_store_operation_seconds_count"}
        assert counted["scan"] > 0, "the state was loaded"
        (group,) = await (await client.get("/v1/sd")).json()
        assert group["targets"] == ["10.5.0.7:9090"]
        assert group["labels"]["__metrics_path__"] == "/metrics"
        assert "/v1/sd" in (await (await client.get("/v1/openapi.json")).json())["paths"]


async def test_a_standby_tells_targets_from_memory_and_refuses_metrics(ingress: Ingress) -> None:
    state = StandbyState()
    state.last_plane, state.extensions, state.since = (
        ingress.plane,
        [routes_of(ingress)],
        time.monotonic(),
    )
    state.store_unreachable = True
    async with TestClient(TestServer(make_standby_app(state))) as client:
        assert len(await (await client.get("/v1/sd")).json()) == 1
        assert (await client.get("/metrics")).status == 503
