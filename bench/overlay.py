"""The overlay between two nodes against a VXLAN made by hand between the same two: throughput, latency, new connections."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from bench.environment import LAB, Environment, Namespace, environment, floor
from bench.rows import Row, row, size
from orchestrator.lab import lab as labs

ROUNDS, MANY, UPS, ASKED, CONNECTIONS = size(5, 1), size(150, 3), size(3, 1), size(4000, 100), size(1500, 50)
IPERF_S = str(size(2, 1))
STACK = """
services:
  a: {image: busybox, command: sleep 1000, networks: [plain, served], deploy: {placement: {constraints: [node.hostname == n1]}}}
  b: {image: busybox, command: sleep 1000, networks: [plain], deploy: {placement: {constraints: [node.hostname == n2]}}}
  c:
    image: busybox
    command: sleep 1000
    networks: [served]
    deploy: {endpoint_mode: vip, placement: {constraints: [node.hostname == n2]}}
networks: {plain: {}, served: {}}
"""
HAND = """
ip netns add hand
ip link add hv type vxlan id 77 dstport 4790 local {own} remote {far}
ip link add hb type bridge
ip link set hb up mtu 1450
ip link set hv master hb up mtu 1450
ip link add hp type veth peer name eth0 netns hand
ip link set hp master hb up mtu 1450
ip -n hand addr add 192.168.250.{number}/24 dev eth0
ip -n hand link set eth0 up mtu 1450
"""
SERVE = """
import socket
s = socket.create_server(("0.0.0.0", 7000)); s.listen(512)
while True:
    c, _ = s.accept(); c.setsockopt(6, 1, 1)
    while d := c.recv(64): c.send(d)
"""
ASK = """
import socket, sys, time
c = socket.create_connection((sys.argv[1], 7000)); c.setsockopt(6, 1, 1)
t = []
for _ in range(int(sys.argv[2])):
    b = time.perf_counter(); c.send(b"x"); c.recv(1); t.append(time.perf_counter() - b)
t.sort(); print(t[len(t) // 2], t[len(t) * 99 // 100])
"""
CONNECT = """
import socket, sys, time
b = time.perf_counter()
for _ in range(int(sys.argv[2])):
    c = socket.create_connection((sys.argv[1], 7000)); c.send(b"x"); c.recv(1); c.close()
print(int(sys.argv[2]) / (time.perf_counter() - b))
"""


def _up_of_150(made: Environment) -> Row:
    """150 services over three nodes, against the same work in shell on one of them; the machine is the same."""
    folder = made.root / "many"
    folder.mkdir()
    file = folder / "stack.yml"
    lines = [f"  s{n}: {{image: busybox, command: sleep 1000, stop_grace_period: 0s}}" for n in range(MANY)]
    file.write_text("services:\n" + "\n".join(lines) + "\n")
    ours, shell = [], []
    for _ in range(UPS):
        shell.append(floor(made, MANY))
        ours.append(made.pystack("-f", str(file), "up"))
        made.pystack("-f", str(file), "down")
    return row(statistics.median(ours), statistics.median(shell))


def measure() -> dict[str, Row]:
    """Rows of the overlay against a VXLAN made by hand, in a lab of three nodes."""
    with environment(nodes=3) as made:
        many = _up_of_150(made)
        rows = _tasks(made)
        ours = [_side(made, rows, "a", "n1"), _side(made, rows, "b", "n2")]
        for node, own, far, number in (("n1", "10.99.0.1", "10.99.0.2", 1), ("n2", "10.99.0.2", "10.99.0.1", 2)):
            script = HAND.format(own=own, far=far, number=number)
            subprocess.run([*labs.enter(labs.find(LAB), node), "sh", "-ec", script], check=True, capture_output=True)
        hand = [Namespace("n1", "--net=/run/netns/hand"), Namespace("n2", "--net=/run/netns/hand")]
        vip = _vip(made)
        address = str(next(iter(rows["b"]["addresses"].values())))  # type: ignore[attr-defined]
        found: dict[str, dict[str, list[float]]] = {}
        served = _side(made, rows, "c", "n2")
        direct = str(next(iter(rows["c"]["addresses"].values())))  # type: ignore[attr-defined]
        servers = [
            s.start(*words) for s in (ours[1], hand[1], served) for words in ((sys.executable, "-c", SERVE), ("iperf3", "-s"))
        ]
        try:
            for side in (ours[1], hand[1], served):
                side.wait_for_ports(7000, 5201)
            for _ in range(ROUNDS):
                for name, sides, goal in (("ours", ours, address), ("hand", hand, "192.168.250.2")):
                    mine = found.setdefault(name, {"bits": [], "p50": [], "p99": [], "rate": []})
                    report = json.loads(sides[0].run("iperf3", "-J", "-t", IPERF_S, "-c", goal))
                    mine["bits"].append(report["end"]["sum_received"]["bits_per_second"] / 1e9)
                    p50, p99 = map(float, sides[0].run(sys.executable, "-c", ASK, goal, str(ASKED)).split())
                    mine["p50"].append(p50 * 1e6)
                    mine["p99"].append(p99 * 1e6)
                    mine["rate"].append(float(sides[0].run(sys.executable, "-c", CONNECT, goal, str(CONNECTIONS))))
                for name, goal in (("vip", vip), ("direct", direct)):
                    rate = float(ours[0].run(sys.executable, "-c", CONNECT, goal, str(CONNECTIONS)))
                    found.setdefault(name, {"rate": []})["rate"].append(rate)
        finally:
            for server in servers:
                server.kill()
                server.wait()
    mid = {n: {k: statistics.median(v) for k, v in m.items()} for n, m in found.items()}
    return {
        "overlay_throughput": row(mid["ours"]["bits"], mid["hand"]["bits"], "Gbit/s", "higher"),
        "overlay_latency_p50": row(mid["ours"]["p50"], mid["hand"]["p50"], "us"),
        "overlay_latency_p99": row(mid["ours"]["p99"], mid["hand"]["p99"], "us"),
        "overlay_connections": row(mid["ours"]["rate"], mid["hand"]["rate"], "1/s", "higher"),
        "vip_connections": row(mid["vip"]["rate"], mid["direct"]["rate"], "1/s", "higher"),
        "up150_three_nodes": many,
    }


def _tasks(made: Environment) -> dict[str, dict[str, object]]:
    folder = made.root / "two"
    folder.mkdir()
    file = folder / "stack.yml"
    file.write_text(STACK)
    made.pystack("-f", str(file), "up")
    done = subprocess.run(
        [".venv/bin/pystack", "-f", str(file), "ps", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
        env=made.environment,
    )
    return {r["service"]: r for r in json.loads(done.stdout)}


def _vip(made: Environment) -> str:
    """The one address of service c, as its neighbour a resolves it."""
    words = [".venv/bin/pystack", "-f", str(made.root / "two" / "stack.yml"), "exec", "-T", "a", "nslookup", "c"]
    done = subprocess.run(words, capture_output=True, text=True, env=made.environment, check=True)
    return done.stdout.split()[-1]


def _side(made: Environment, rows: dict[str, dict[str, object]], service: str, node: str) -> Namespace:
    root = Path(made.root).parent / node
    return Namespace(node, f"--net={root}/run/netns/{str(rows[service]['id'])[:16]}")


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["overlay", *sys.argv[1:]]))
