"""macvlan against one made by hand, sshfs against one mounted by hand, and a volume's move against copying it."""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.environment import LAB, Environment, Namespace, environment
from bench.rows import Row, row, size
from orchestrator.lab import lab as labs

ROUNDS, COPIES, FILES, MEGABYTES = size(5, 1), size(6, 1), size(50_000, 50), size(256, 4)
IPERF_S = str(size(2, 1))
STACK = """
name: lan
services:
  a:
    image: busybox
    command: sleep 1000
    networks: [lan]
    volumes: ["shared:/shared"]
    deploy: {placement: {constraints: [node.hostname == n1]}}
  b:
    image: busybox
    command: sleep 1000
    networks: [lan]
    volumes: ["shared:/shared"]
    deploy: {placement: {constraints: [node.hostname == n2]}}
  c: {image: busybox, command: sleep 1000, volumes: ["big:/big"], stop_grace_period: 0s}
networks:
  lan:
    driver: macvlan
    driver_opts: {parent: eth0}
    ipam: {config: [{subnet: 10.99.0.0/24, ip_range: 10.99.0.64/26}]}
volumes:
  shared: {driver: sshfs}
  big: {}
"""
HAND = """
ip netns add hand
ip link add link eth0 name hv netns hand type macvlan mode bridge
ip -n hand addr add 10.99.0.{number}/24 dev hv
ip -n hand link set hv up
"""
COPY = """
import os, sys, time
path, mode, megabytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
file, block = open(path, mode), os.urandom(1 << 20)
begin = time.perf_counter()
if mode == "wb":
    for _ in range(megabytes):
        file.write(block)
    file.flush()
    os.fsync(file.fileno())
else:
    while file.read(1 << 20):
        pass
print(megabytes / (time.perf_counter() - begin))
"""


def measure() -> dict[str, Row]:
    """Rows of macvlan, sshfs and a volume's move, each against the same made by hand, in a lab of two nodes."""
    with environment(nodes=2) as made:
        file = made.root / "stack.yml"
        file.write_text(STACK)
        made.pystack("-f", str(file), "up")
        done = subprocess.run(
            [".venv/bin/pystack", "-f", str(file), "ps", "--format", "json"],
            capture_output=True,
            text=True,
            check=True,
            env=made.environment,
        )
        tasks = {r["service"]: r for r in json.loads(done.stdout)}
        return {"macvlan_throughput": _macvlan(made, tasks), **_sshfs(made), **_move(made, tasks["c"]["node"])}


def _macvlan(made: Environment, tasks: dict[str, dict[str, object]]) -> Row:
    root = Path(made.root).parent
    ours = [Namespace(n, f"--net={root}/{n}/run/netns/{str(tasks[s]['id'])[:16]}") for s, n in (("a", "n1"), ("b", "n2"))]
    for node, number in (("n1", 201), ("n2", 202)):
        script = HAND.format(number=number)
        subprocess.run([*labs.enter(labs.find(LAB), node), "sh", "-ec", script], check=True, capture_output=True)
    hand = [Namespace("n1", "--net=/run/netns/hand"), Namespace("n2", "--net=/run/netns/hand")]
    address = str(next(iter(tasks["b"]["addresses"].values())))  # type: ignore[attr-defined]
    servers = [side.start("iperf3", "-s") for side in (ours[1], hand[1])]
    found: dict[str, list[float]] = {"ours": [], "hand": []}
    try:
        for side in (ours[1], hand[1]):
            side.wait_for_ports(5201)
        for _ in range(ROUNDS):
            for name, sides, goal in (("ours", ours, address), ("hand", hand, "10.99.0.202")):
                found[name].append(_gigabits(sides[0], goal))
    finally:
        for server in servers:
            server.kill()
            server.wait()
    return row(statistics.median(found["ours"]), statistics.median(found["hand"]), "Gbit/s", "higher")


def _gigabits(side: Namespace, goal: str) -> float:
    for _ in range(50):  # until its server listens
        report = json.loads(side.run("iperf3", "-J", "-t", IPERF_S, "-c", goal))
        if "error" not in report:
            return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9
        time.sleep(0.1)
    raise RuntimeError(report["error"])


def _sshfs(made: Environment) -> dict[str, Row]:
    """One large file written and read on the node that is not the home, through our mount and through one made by hand."""
    root = Path(made.root).parent
    node = labs.enter(labs.find(LAB), "n2")
    key = root / "n1/home/.ssh/id_ed25519"
    source, target = made.root / "by-hand", root / "n2/by-hand"
    source.mkdir()
    target.mkdir()
    words = [
        "sshfs",
        f"root@10.99.0.1:{source}",
        str(target),
        "-o",
        f"IdentityFile={key},StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,sftp_server=/usr/lib/openssh/sftp-server",
    ]
    subprocess.run([*node, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    mine = root / "n2/volumes/lan_shared/_data"
    found: dict[tuple[str, str], list[float]] = {}
    try:
        for number in range(COPIES):
            for name, folder in (("ours", mine), ("hand", target))[:: 1 if number % 2 else -1]:
                for mode in ("wb", "rb"):
                    words = [sys.executable, "-c", COPY, f"{folder}/file", mode, str(MEGABYTES)]
                    done = subprocess.run([*node, *words], check=True, capture_output=True, text=True)
                    os.sync()  # or the next one meets these pages on their way to the disk
                    found.setdefault((name, mode), []).append(float(done.stdout))
    finally:
        subprocess.run([*node, "umount", str(target)], check=True)
    mid = {key: statistics.median(values) for key, values in found.items()}
    return {
        "sshfs_write": row(mid["ours", "wb"], mid["hand", "wb"], "MB/s", "higher"),
        "sshfs_read": row(mid["ours", "rb"], mid["hand", "rb"], "MB/s", "higher"),
    }


def _move(made: Environment, node: object) -> dict[str, Row]:
    """1 GB in 50,000 files to the other node, against `cp -a`; how long its user stood still, against one comparing pass."""
    root = Path(made.root).parent
    data = root / str(node) / "volumes/lan_big/_data"
    dice = random.Random(1)
    for number in range(FILES):
        folder = data / str(number // 500)
        folder.mkdir(exist_ok=True)
        (folder / str(number)).write_bytes(dice.randbytes(20_000))
    began = time.perf_counter()
    subprocess.run(["cp", "-a", str(data), str(made.root / "copied")], check=True)
    copied = time.perf_counter() - began
    other = "n2" if node == "n1" else "n1"
    began = time.perf_counter()
    done = subprocess.run(
        [".venv/bin/pystack", "volume", "move", "lan_big", other],
        capture_output=True,
        text=True,
        check=True,
        env=made.environment,
    )
    moved = time.perf_counter() - began
    took = [float(t) for t in re.findall(r"took ([0-9.]+) s", done.stderr)]
    return {"volume_move": row(moved, copied), "volume_move_stopped": row(took[-1], took[-2])}


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["lan", *sys.argv[1:]]))
