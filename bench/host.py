"""One host beside dockerd on the same node: pulls, published ports, bridges, names; and one more container among 500."""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from bench.environment import LAB, Environment, Namespace, docker
from bench.rows import Row, row, size
from orchestrator.lab import lab as labs
from tests.images import archive, busybox_rootfs, tar_of

REGISTRY = "127.0.0.1:5055"
IMAGE = f"{REGISTRY}/large:1"
CROWD, ROUNDS, RUNS, ASK_S = size(500, 2), size(5, 1), size(9, 1), size(3, 1)
IPERF_S = str(size(2, 1))
GOAL_ANSWERS, GOAL_P99_MS, GOAL_ATTACH_MS = 60_000.0, 1.0, 4.0
ASK = """
import socket, struct, sys, time
name = b"".join(bytes([len(p)]) + p for p in sys.argv[1].encode().split(b".")) + b"\\0"
tail = struct.pack("!HHHHH", 0x100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(3)
sock.connect(("127.0.0.11", 53))
window, waits, count = 32, [], 0
questions = [struct.pack("!H", n) + tail for n in range(window)]
send, recv, now = sock.send, sock.recv, time.perf_counter
begin = now()
while now() - begin < float(sys.argv[2]):
    sent = now()
    for question in questions:
        send(question)
    for _ in range(window):
        assert recv(512)[7] == 1
    waits.append(now() - sent)
    count += window
took = now() - begin
waits.sort()
print(count / took, waits[len(waits) * 99 // 100] * 1e3)
"""


def measure(environment: Environment) -> dict[str, Row]:
    """Rows of pulls, traffic, names, and one more container; those beside dockerd only where it is installed."""
    with docker(environment) as there:
        rows = {**_traffic(environment, there), **(_pull(environment) if there else {})}
    return {**rows, **_attach(environment), **_crowd(environment)}


def _output(environment: Environment, *command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment.environment)
    return done.stdout


# --- pull -------------------------------------------------------------------------------------------------------


def _pull(environment: Environment) -> dict[str, Row]:
    """200 MB in eight layers, half of it noise and half words, from a registry on the same node."""
    rng = random.Random(1)
    words = [bytes(rng.randrange(97, 123) for _ in range(rng.randrange(3, 9))) for _ in range(5000)]
    layers = [busybox_rootfs()]
    for number in range(8):
        text = b" ".join(rng.choices(words, k=1 << 20))[: 6 << 20]
        files: dict[str, bytes | str | None] = {f"l{number}": None}
        files |= {f"l{number}/noise{n}": rng.randbytes(1 << 20) for n in range(12)}
        files |= {f"l{number}/words{n}": text for n in range(2)}
        layers.append(tar_of(files))
    home = environment.root / "registry"
    home.mkdir()
    config = home / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {home}/data}}}}\n"
        f"http: {{addr: '{REGISTRY}'}}\nlog: {{level: error}}\n"
    )
    server = subprocess.Popen(
        [*labs.enter(labs.find(LAB), "n1"), "docker-registry", "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        tar = archive(home / "large.tar", layers, name=IMAGE)
        environment.pystack("image", "load", "-i", str(tar))
        environment.pystack("image", "push", IMAGE)
        tar.unlink()
        environment.pystack("image", "rm", IMAGE)
        ours, theirs = [], []
        for _ in range(3):
            ours.append(environment.pystack("image", "pull", IMAGE))
            environment.pystack("image", "rm", IMAGE)
            theirs.append(environment.docker("/usr/bin/docker", "pull", IMAGE))
            environment.docker("/usr/bin/docker", "rmi", IMAGE)
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(home)
    return {"pull_200mb_vs_docker": row(statistics.median(ours), statistics.median(theirs))}


# --- ports, bridges, names --------------------------------------------------------------------------------------


def _bits(*client: str) -> float:
    done = subprocess.run([*client, "-J", "-t", IPERF_S], capture_output=True, text=True, check=True, timeout=60)
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


def _rival_sides(environment: Environment) -> tuple[list[Namespace], str]:
    """Server and client as containers of dockerd on a bridge of their own, and the server's address."""
    dock = ("/usr/bin/docker", "-H", f"unix://{environment.docker_socket}")
    _output(environment, *dock, "network", "create", "bench")
    for name, more in (("server", ("-p", "5301:5201")), ("client", ())):
        _output(environment, *dock, "run", "-d", "--name", name, "--network", "bench", *more, "busybox", "sleep", "1000")
    pids = [_output(environment, *dock, "inspect", "-f", "{{.State.Pid}}", n).strip() for n in ("server", "client")]
    address = _output(environment, *dock, "inspect", "-f", "{{.NetworkSettings.Networks.bench.IPAddress}}", "server").strip()
    return [Namespace("n1", "-n", f"--target={pid}") for pid in pids], address


def _traffic(environment: Environment, rival: bool) -> dict[str, Row]:
    """iperf3 from another machine to a published port, and from container to container; questions of one for the other."""
    folder = environment.root / "traffic"
    folder.mkdir()
    file = folder / "stack.yml"
    file.write_text(
        "services:\n"
        "  server: {image: busybox, command: sleep 1000, ports: ['5201:5201'], stop_grace_period: 0s}\n"
        "  client: {image: busybox, command: sleep 1000, stop_grace_period: 0s}\n"
    )
    environment.pystack("-f", str(file), "up")
    rows = {
        r["service"]: r
        for r in json.loads(_output(environment, ".venv/bin/pystack", "-f", str(file), "ps", "--format", "json"))
    }
    sides = {
        "ours": [Namespace("n1", f"--net={environment.root}/run/netns/{rows[s]['id'][:16]}") for s in ("server", "client")]
    }
    goals = {"ours": ("5201", next(iter(rows["server"]["addresses"].values())), "server")}
    if rival:
        sides["theirs"], address = _rival_sides(environment)
        goals["theirs"] = ("5301", address, "server")
    found: dict[str, dict[str, list[float]]] = {}
    servers = [side[0].start("iperf3", "-s") for side in sides.values()]
    outside = labs.enter(labs.find(LAB), "outside")
    try:
        for server, _ in sides.values():
            server.wait_for_ports(5201)
        for _ in range(ROUNDS):
            for name, (server, client) in sides.items():
                del server
                port, address, word = goals[name]
                mine = found.setdefault(name, {"port": [], "bridge": [], "rate": [], "p99": []})
                mine["port"].append(_bits(*outside, "iperf3", "-c", "10.99.0.1", "-p", port))
                mine["bridge"].append(_bits(*client.words, "iperf3", "-c", address))
                rate, p99 = map(float, client.run(sys.executable, "-c", ASK, word, str(ASK_S)).split())
                mine["rate"].append(rate)
                mine["p99"].append(p99)
    finally:
        for one in servers:
            one.kill()
            one.wait()
        environment.pystack("-f", str(file), "down")
    mid = {n: {k: statistics.median(v) for k, v in m.items()} for n, m in found.items()}
    ours = mid["ours"]
    out = {
        "dns_answers": row(ours["rate"], GOAL_ANSWERS, "1/s", "higher"),
        "dns_window32_p99": row(ours["p99"], GOAL_P99_MS, "ms"),
    }
    if rival:
        theirs = mid["theirs"]
        out |= {
            "port_throughput_vs_docker": row(ours["port"], theirs["port"], "Gbit/s", "higher"),
            "bridge_throughput_vs_docker": row(ours["bridge"], theirs["bridge"], "Gbit/s", "higher"),
            "dns_answers_vs_docker": row(ours["rate"], theirs["rate"], "1/s", "higher"),
        }
    return out


# --- one more ---------------------------------------------------------------------------------------------------


def _attach(environment: Environment) -> dict[str, Row]:
    """One endpoint more on a network of 50: the agent's own processor time, data path process apart."""
    command = [*labs.enter(labs.find(LAB), "outside"), sys.executable, "-m", "bench.attach", str(environment.root / "attach")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    found = json.loads(done.stdout)
    return {"attach_cpu": row(found["cpu"], GOAL_ATTACH_MS, "ms"), "attach_wall": row(found["wall"], GOAL_ATTACH_MS, "ms")}


def _crowd(environment: Environment) -> dict[str, Row]:
    """`container run -d` on an empty host, and on one with 500 containers."""
    folder = environment.root / "crowd"
    folder.mkdir()
    file = folder / "stack.yml"
    lines = [f"  s{n}: {{image: busybox, command: sleep 10000, stop_grace_period: 0s}}" for n in range(CROWD)]
    file.write_text("services:\n" + "\n".join(lines) + "\n")

    def one() -> float:
        took = environment.pystack("container", "run", "-d", "--name", "late", "busybox", "sleep", "100")
        environment.pystack("container", "rm", "-f", "late")
        return took

    empty = statistics.median(one() for _ in range(RUNS))
    environment.pystack("-f", str(file), "up", "--progress", "quiet")
    crowded = statistics.median(one() for _ in range(RUNS))
    environment.pystack("-f", str(file), "down", "--progress", "quiet")
    return {"one_more_among_500": row(crowded, empty)}


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["host", *sys.argv[1:]]))
