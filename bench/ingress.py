"""The way in: what a request costs the proxy beside the same proxy set up by hand, and how soon all proxies know of a change.

Costs are processor time of the proxy, which has one core: what else the machine does, and how fast a client asks, is not in
them. Everything is on loopback, with the configuration that the control plane makes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import aiohttp
import msgspec

from agent.contract.container import Attachment, Container
from agent.contract.network import Network, Subnet
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from bench.rows import Row, row, size
from orchestrator import authority
from orchestrator.ingress import caddy
from orchestrator.ingress.controller import Ingress
from orchestrator.ingress.model import SERVICE, STACK, Certificate, IngressSettings
from orchestrator.ingress.requests import RequestCounts, read_line, rule_host
from orchestrator.ingress.routes import Site, Upstream
from orchestrator.server.members import NodeConnection
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import StackRecord
from orchestrator.stackfile.certificate_text import read_pair
from orchestrator.stackfile.model import IngressRule, Service, Stack
from orchestrator.store.sqlite import SqliteStore
from orchestrator.transport.agent_client import AgentClient

ROUNDS = size(9, 1)
KEPT, FRESH = size(1000, 50), size(100, 5)
"""Requests of a round on one connection, and each on a new one."""
HOSTS, TASKS, PROXIES, CHANGES = size(200, 5), size(1000, 10), size(3, 2), size(50, 3)
LINES, GOAL_LINE_US = size(20_000, 100), 50.0
GOAL_RATIO, GOAL_CHANGE_MS, GOAL_MEMORY = 1 / 0.95, 300.0, 256.0
STARTED_S = 60.0
HTTP, HTTPS = 60_080, 60_443
"""In place of the ports of each proxy."""
NODES = size(200, 5)


def measure() -> dict[str, Row]:
    """Rows of requests, of changes, and of the proxy's memory after them."""
    with tempfile.TemporaryDirectory(prefix="pystack-bench-") as folder:
        return {**_requests(Path(folder)), **_counting(), **asyncio.run(_changes(Path(folder)))}


# --- proxies ----------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def _caddy(folder: Path, name: str, config: str, *options: str) -> Iterator[int]:
    """A Caddy with one core; its process."""
    file = folder / f"{name}.conf"
    file.write_text(config)
    environment = {**os.environ, "HOME": str(folder), "GOMAXPROCS": "1"}
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(["caddy", "run", "--config", file, *options], env=environment, stdout=log, stderr=log)
    try:
        yield child.pid
    finally:
        child.terminate()
        child.wait()


def _wait(port: int) -> None:
    until = time.monotonic() + STARTED_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > until:
            raise RuntimeError(f"nothing listens at port {port} after {STARTED_S:.0f} s")
        time.sleep(0.05)


def _cpu_s(pid: int) -> float:
    """Seconds of all its threads. Source: kernel, Documentation/scheduler/sched-stats.rst."""
    return sum(int(p.read_text().split()[0]) for p in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


# --- requests ---------------------------------------------------------------------------------------------------


def _requests(folder: Path) -> dict[str, Row]:
    """Processor time of the proxy for a request, ours and by hand, with one host and with 200, of which the last is asked; and
    ours that says a line of each (`--count-requests`) beside ours that does not."""
    root = authority.make_root("bench", datetime.datetime.now(datetime.UTC))
    tls = ssl.create_default_context(cadata=authority.root_certificate(root))
    backend = _free_port()
    out: dict[str, Row] = {}
    with _caddy(folder, "backend", f":{backend} {{\n respond ok\n}}\n", "--adapter", "caddyfile"):
        _wait(backend)
        for number in (1, HOSTS):
            hosts = [f"h{n}.example.org" for n in range(number)]
            pairs = {h: read_pair(authority.issue(root, h, datetime.datetime.now(datetime.UTC)), h) for h in hosts}
            ports = {name: _free_port() for name in ("ours", "theirs", "counted")}
            configs = {
                "ours": _ours(hosts, pairs, backend, ports["ours"], folder),
                "theirs": _by_hand(hosts, pairs, backend, ports["theirs"], folder),
                "counted": _ours(hosts, pairs, backend, ports["counted"], folder, "hosts"),
            }
            with contextlib.ExitStack() as running:
                pids = {
                    name: running.enter_context(_caddy(folder, f"{name}{number}", config, *_adapter(name)))
                    for name, config in configs.items()
                }
                for port in ports.values():
                    _wait(port)
                costs = _costs(pids, ports, tls, hosts[-1])
            for kind, spent in costs.items():
                mine, theirs, counted = (spent[name] * 1e6 for name in ("ours", "theirs", "counted"))
                out[f"ingress_{kind}_of_{number}_hosts"] = row(mine, theirs, "µs of the proxy's CPU")
                out[f"ingress_counted_{kind}_of_{number}_hosts"] = row(counted, mine, "µs of the proxy's CPU")
    return out


def _counting() -> dict[str, Row]:
    """What the server that leads spends on a line that a proxy says of a request."""
    line = (
        b'{"msg":"upstream roundtrip","upstream":"10.0.0.5:8080","duration":0.001301,"status":200,'
        b'"request":{"host":"shop.example.org"}}'
    )
    counts, hosts = RequestCounts(), frozenset({"shop.example.org"})
    began = time.process_time()
    for _ in range(LINES):
        one = read_line(line)
        assert one
        counts.add(rule_host(one.host, hosts), one.status, one.seconds)
    return {
        "ingress_count_of_a_request": row((time.process_time() - began) / LINES * 1e6, GOAL_LINE_US, "µs of the server's CPU")
    }


def _adapter(name: str) -> tuple[str, ...]:
    return ("--adapter", "caddyfile") if name == "theirs" else ()


def _ours(
    hosts: list[str], pairs: Mapping[str, Any], backend: int, port: int, folder: Path, seen: caddy.Seen = "nothing"
) -> str:
    settings = IngressSettings(image="i", http_port=_free_port(), https_port=port, version="2.6.2-5")
    sites = [Site(IngressRule(host=h, port=backend), "internal", (Upstream(f"127.0.0.1:{backend}", 1),)) for h in hosts]
    made = caddy.configuration(sites, [(p.chain, p.key) for p in pairs.values()], (), settings, seen)
    return json.dumps(made).replace(caddy.ADMIN_SOCKET, str(folder / f"ours{len(hosts)}{seen}.sock"))


def _by_hand(hosts: list[str], pairs: Mapping[str, Any], backend: int, port: int, folder: Path) -> str:
    lines = ["{\n admin off\n auto_https disable_redirects\n}"]
    for host in hosts:
        for part, text in (("crt", pairs[host].chain), ("key", pairs[host].key)):
            (folder / f"{host}.{part}").write_text(text)
        where = f"{folder}/{host}"
        lines.append(f"https://{host}:{port} {{\n tls {where}.crt {where}.key\n reverse_proxy 127.0.0.1:{backend}\n}}")
    return "\n".join(lines) + "\n"


def _costs(pids: Mapping[str, int], ports: Mapping[str, int], tls: ssl.SSLContext, host: str) -> dict[str, dict[str, float]]:
    """Seconds of CPU for a request or connection, by the names of *pids*: the median of rounds in which each has its turn."""
    found: dict[str, dict[str, float]] = {}
    for kind, count in (("request", KEPT), ("connection", FRESH)):
        rounds = []
        for number in range(ROUNDS + 1):
            spent = {}
            for name in sorted(pids, reverse=bool(number % 2)):
                before = _cpu_s(pids[name])
                _ask(ports[name], tls, host, count, fresh=kind == "connection")
                spent[name] = (_cpu_s(pids[name]) - before) / count
            if number or ROUNDS == 1:  # the first warms up
                rounds.append(spent)
        found[kind] = {name: statistics.median(one[name] for one in rounds) for name in pids}
    return found


def _ask(port: int, tls: ssl.SSLContext, host: str, count: int, *, fresh: bool) -> None:
    """Ask so often, each time on a new connection, or all on one. Raises RuntimeError for an answer that is none."""
    words = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    one: ssl.SSLSocket | None = None
    for _ in range(count):
        if one is None:
            one = tls.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname=host)
        one.sendall(words)
        answer = b""
        while not answer.endswith(b"\r\n\r\nok"):
            piece = one.recv(1 << 14)
            if not piece:
                raise RuntimeError(f"port {port} answers {answer[:200]!r}")
            answer += piece
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"port {port} answers {answer[:200]!r}")
        if fresh:
            one.close()
            one = None
    if one:
        one.close()


# --- changes ----------------------------------------------------------------------------------------------------


class _Client:
    """In place of the agent of *node*: what the control plane loads goes to the Caddy at the socket of that name."""

    def __init__(self, node: str, sockets: Mapping[str, str]) -> None:
        self.node = node
        self._sockets = sockets
        self._ports = _free_port(), _free_port()

    async def call(self, method: str, path: str, *, data: bytes, headers: Mapping[str, str], **_: object) -> None:
        """Load *data*. Raises RuntimeError where the proxy refuses it."""
        if not self._sockets:
            return
        socket_path = self._sockets[path.split("/")[3]]
        document = data.replace(caddy.ADMIN_SOCKET.encode(), socket_path.encode())
        for mine, free in zip((HTTP, HTTPS), self._ports, strict=True):  # all proxies are on this host
            document = document.replace(str(mine).encode(), str(free).encode())
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=socket_path)) as session,
            session.request(method, "http://localhost/load", data=document, headers=headers) as reply,
        ):
            if reply.status != 200:
                raise RuntimeError(await reply.text())


class _Member(msgspec.Struct):
    client: _Client
    node: Any
    ready: bool = True
    unheard: bool = False


class _Node(msgspec.Struct):
    name: str
    underlay: str = "127.0.0.1"


async def _changes(folder: Path) -> dict[str, Row]:
    """From a task that changes until every proxy has its new configuration, of 200 hosts with 1,000 tasks: the processor time
    of the server and of one proxy, as proxies of nodes of their own load it at once; and by the clock, all on this host."""
    store = await SqliteStore.open(folder / "store.db")
    plane = ControlPlane(store, "p0", folder / "docker.sock", folder / "run", folder / "keys")
    ingress = Ingress(plane)
    sockets = {f"c{n}": str(folder / f"p{n}.sock") for n in range(PROXIES)}
    await plane.contents.start()
    await _fill(plane, ingress)
    with contextlib.ExitStack() as running:
        pids = []
        for name, path in sockets.items():
            start = json.dumps(caddy.EMPTY).replace(caddy.ADMIN_SOCKET, path)
            pids.append(running.enter_context(_caddy(folder, name, start)))
        for n, path in enumerate(sockets.values()):
            await _there(path)
            _add_proxy(plane, n, sockets)
        await ingress.push()
        problems = [p.problem for p in ingress.proxies.values() if p.problem or not p.digest]
        if problems or len(ingress.proxies) != PROXIES:
            raise RuntimeError(f"proxies: {problems}")
        before, mine = [_cpu_s(pid) for pid in pids], time.process_time()
        took = [await _change(plane, ingress, number) for number in range(CHANGES)]
        mine = time.process_time() - mine
        theirs = max(_cpu_s(pid) - one for pid, one in zip(pids, before, strict=True))
        memory = max(_memory_mib(pid) for pid in pids)
    for n in range(PROXIES, NODES):
        _add_proxy(plane, n, {})
    for n in range(PROXIES):
        plane.cluster.members[f"p{n}"].client = cast("AgentClient", _Client(f"p{n}", {}))
    await ingress.push()
    many = [await _change(plane, ingress, number) for number in range(size(20, 1))]
    await store.close()
    return {
        f"ingress_change_for_{NODES}_proxies_without_theirs": row(statistics.median(many), GOAL_CHANGE_MS, "ms"),
        f"ingress_change_of_{HOSTS}_hosts_{TASKS}_tasks": row((mine + theirs) / CHANGES * 1e3, GOAL_CHANGE_MS, "ms of CPU"),
        f"ingress_change_by_the_clock_{PROXIES}_proxies_here": row(statistics.median(took), GOAL_CHANGE_MS, "ms"),
        f"ingress_proxy_memory_after_{CHANGES}_changes": row(memory, GOAL_MEMORY, "MiB"),
    }


def _add_proxy(plane: ControlPlane, number: int, sockets: Mapping[str, str]) -> None:
    """One more node with a proxy; without *sockets*, it takes everything at once."""
    node, name = f"p{number}", f"{STACK}-{SERVICE}-{number}"
    plane.cluster.members[node] = cast("NodeConnection", _Member(_Client(node, sockets), _Node(node)))
    container = Container(image="i", network_mode="host")
    plane.state.tasks[name] = Task(name=name, stack=STACK, service=SERVICE, node=node, container=container, desired="running")
    plane.statuses.by_task[name] = TaskStatus(task=name, state="running", container=f"c{number}", started="1")


async def _change(plane: ControlPlane, ingress: Ingress, number: int) -> float:
    """Milliseconds from a task that ends, or runs again, until all proxies have it. Raises RuntimeError if one has not."""
    name = f"s{number % HOSTS}-web-0"
    state = plane.statuses.by_task[name].state
    status = TaskStatus(task=name, state="exited" if state == "running" else "running", container=name)
    plane.statuses.by_task[name] = status
    before = {n: p.digest for n, p in ingress.proxies.items()}
    began = time.perf_counter()
    await ingress.push()
    took = (time.perf_counter() - began) * 1e3
    if any(p.digest == before[n] for n, p in ingress.proxies.items()):
        raise RuntimeError("a proxy did not get the change")
    return took


def _memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(one for one in lines if one.startswith("VmRSS:")).split()[1]) / 1024


async def _there(path: str) -> None:
    async with asyncio.timeout(STARTED_S):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(path)
                return writer.close()
            await asyncio.sleep(0.02)


async def _fill(plane: ControlPlane, ingress: Ingress) -> None:
    """HOSTS stacks with a host each, and TASKS tasks, all of which run; each host has a certificate."""
    plane.state.networks["net"] = Network(name="net", driver="overlay", subnets=(Subnet(cidr="10.5.0.0/16"),))
    ingress.settings = IngressSettings(image="i", version="2.6.2-5", http_port=HTTP, https_port=HTTPS)
    root = authority.make_root("bench", datetime.datetime.now(datetime.UTC))
    each = TASKS // HOSTS
    for n in range(HOSTS):
        host, stack = f"h{n}.internal", f"s{n}"
        rule = IngressRule(host=host, port=80, where="bench")
        service = Service(name="web", container=Container(image="i"), where="bench", ingress=(rule,))
        plane.state.stacks[stack] = StackRecord(stack=Stack(name=stack, services=(service,)), revision=1, updated="")
        text = authority.issue(root, host, datetime.datetime.now(datetime.UTC))
        await plane.contents.create("secret", f"ingress.{n}", text, replace=False)
        pair = read_pair(text, host)
        ingress.certificates.known[host] = Certificate(
            host=host,
            issuer="internal",
            secret=f"ingress.{n}",
            not_before=pair.not_before.timestamp(),
            not_after=pair.not_after.timestamp(),
        )
        for k in range(each):
            name, address = f"{stack}-web-{k}", f"10.5.{n % 250}.{k + 2}"
            on = Container(image="i", attachments=(Attachment(network="net", ipv4=address),))
            plane.state.tasks[name] = Task(name=name, stack=stack, service="web", node="p0", container=on, desired="running")
            plane.statuses.by_task[name] = TaskStatus(task=name, state="running", container=name)


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["ingress", *sys.argv[1:]]))
