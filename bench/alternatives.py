"""Our own part against the library or the simpler way that it stands for, as docs/decisions has it: the columns of the node
table, the exact solver, the codecs of netlink and DNS, the HTTP client. The baseline is the alternative."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from agent.contract.status import NodeInfo
from bench.rows import Row, row, size
from netplugins.linux import rtnetlink
from netplugins.resolver import message
from orchestrator.placement.columns import Columns, PlainColumns
from orchestrator.placement.exact import solve
from orchestrator.placement.greedy import TaskGroup, place
from orchestrator.placement.node import Node
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest
from orchestrator.placement.vectors import VectorColumns
from orchestrator.stackfile.model import Placement, Reserves

NODES, GROUPS, STACKS, MESSAGES, STARTS = size(1_000, 20), size(100, 5), size(200, 10), size(2_000, 50), size(11, 1)
QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x05front\x00\x00\x01\x00\x01"


def measure() -> dict[str, Row]:
    """All rows."""
    return {**_columns(), **_solver(), **_codecs(), **_client()}


def _table(count: int, cpus: float, columns: Columns) -> NodeTable:
    nodes = [
        Node(name=f"n{i}", id=str(i), labels=(("zone", f"z{i % 10}"),), info=NodeInfo(cpus=cpus, memory=256 << 30))
        for i in range(count)
    ]
    return NodeTable(nodes, {n.name for n in nodes}, columns)


def _columns() -> dict[str, Row]:
    """Groups of five tasks on a cluster, spread over zones; and what numpy costs a host on its own."""

    def once(columns: Columns, nodes: int) -> float:
        table = _table(nodes, 64, columns)
        asked = [
            TaskGroup(
                PlacementRequest(
                    service=f"s/{i}",
                    reserves=Reserves(cpus=0.5),
                    placement=Placement(constraints=("node.labels.zone != z3",), spread=("node.labels.zone",)),
                ),
                5,
            )
            for i in range(GROUPS)
        ]
        began = time.perf_counter()
        place(table, asked)
        return time.perf_counter() - began

    return {
        "columns_numpy_cluster": row(once(VectorColumns(), NODES), once(PlainColumns(), NODES)),
        "columns_plain_one_node": row(once(PlainColumns(), 1), once(VectorColumns(), 1)),
        "columns_numpy_import": row(*_imports("numpy", "")),
    }


def _solver() -> dict[str, Row]:
    """Stacks of random reservations on four nodes that they nearly fill: how many the exact solver places, beside greedy."""
    rnd = random.Random(1)
    greedy, exact, took = 0, 0, []
    for _ in range(STACKS):
        asked = [
            TaskGroup(PlacementRequest(service=f"s/{i}", reserves=Reserves(cpus=rnd.choice([1, 2, 3, 4, 5]))), 1)
            for i in range(10)
        ]
        free = -(-sum(g.request.reserves.cpus for g in asked) // 4)
        found = place(_table(4, free, VectorColumns()), asked)
        greedy += all(found)
        began = time.perf_counter()
        exact += solve(_table(4, free, VectorColumns()), asked) is not None
        took.append((time.perf_counter() - began) * 1e3)
    return {
        "exact_stacks_placed": row(exact, greedy or 1, "stacks", "higher"),
        "exact_p50_goal_1s": row(statistics.median(took), 1_000.0, "ms"),
    }


def _codecs() -> dict[str, Row]:
    """Microseconds for one message that makes a veth pair, and for one DNS question read."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # type: ignore[import-untyped]

    def own() -> None:
        rtnetlink.add_veth("v1", master=5, peer="eth0", peer_netns=7, peer_mac="02:00:00:00:00:01", mtu=1450)

    def library() -> None:
        peer = {"attrs": [("IFLA_IFNAME", "eth0"), ("IFLA_MTU", 1450), ("IFLA_ADDRESS", "02:00:00:00:00:01")]}
        data = {"attrs": [("VETH_INFO_PEER", peer)]}
        info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
        made = ifinfmsg()
        made["attrs"] = [("IFLA_IFNAME", "v1"), ("IFLA_MTU", 1450), ("IFLA_MASTER", 5), ("IFLA_LINKINFO", info)]
        made.encode()

    return {
        "netlink_encode": row(_each(own), _each(library), "us"),
        "dns_parse_goal_10us": row(_each(lambda: message.parse(QUERY)), 10.0, "us"),
    }


def _client() -> dict[str, Row]:
    """Starting an interpreter with our HTTP client, beside http.client."""
    return {"client_import": row(*_imports("orchestrator.cli.http", "orchestrator.cli, http.client"))}


def _each(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(MESSAGES):
        work()
    return (time.perf_counter() - began) / MESSAGES * 1e6


def _imports(one: str, other: str) -> tuple[float, float]:
    """Medians of the seconds in which an interpreter starts, imports each of the two modules ("" for none), and ends."""

    def start(module: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}" if module else ""], check=True)
        return time.perf_counter() - began

    for module in (one, other):
        start(module)  # compiled, and in the page cache
    took = [(start(one), start(other)) for _ in range(STARTS)]  # in turns: both see the same load
    return statistics.median(t[0] for t in took), statistics.median(t[1] for t in took)


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["alternatives", *sys.argv[1:]]))
