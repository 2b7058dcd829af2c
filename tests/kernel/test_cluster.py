"""Three nodes: placement, the overlay, services as one, images without a registry, faults. All parts are real."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

WEB = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    ports: ["18080:80"]
    deploy: {replicas: 2}
  client:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    depends_on: [web]
    deploy: {mode: global}
"""
ASK = "for i in 1 2 3 4 5 6 7 8; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 %s 80 | tail -1; done"

PUBLISHED = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    ports: ["18081:80"]
    x-ingress-mode: %s
    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Pystack]:
    with cluster_of(3, "n1:zone=a", "n2:zone=a", "n3:zone=b") as pystack:
        yield pystack


@pytest.fixture(scope="module")
def lab(cluster: Pystack) -> Pystack:
    """Where `stack` makes its stacks."""
    return cluster


def answers(text: str) -> set[str]:
    return {line for line in text.splitlines() if line.strip()}


def test_nodes_are_listed_with_what_they_are(cluster: Pystack) -> None:
    rows = {row["name"]: row for row in cluster.json("node", "ls", "--format", "json")}
    assert set(rows) == {"n1", "n2", "n3"}
    assert rows["n3"]["labels"] == {"zone": "b"}
    assert all(row["state"] == "ready" and row["capacity"]["cpus"] >= 1 for row in rows.values())
    assert rows["n2"]["address"].startswith("root@")


def test_every_port_of_a_range_answers_on_every_node(stack: Stack, cluster: Pystack) -> None:
    stack.up(WEB.replace("18080:80", "18081-18083:80").replace("replicas: 2", "replicas: 3"))
    names = {str(row["id"])[:12] for row in stack.ps().values()}

    def answered(node: int, port: int) -> None:
        url = f"http://10.99.0.{node}:{port}/"
        assert cluster.on("outside", "curl", "-s", "-m", "3", url, check=False).strip() in names

    for port in (18081, 18082, 18083):
        for node in (1, 2, 3):
            eventually(lambda n=node, p=port: answered(n, p))  # type: ignore[misc]


def test_a_service_is_one_on_every_node(stack: Stack) -> None:
    """Replicas are spread, the image is shipped, the name leads to one address, and each node answers the port."""
    stack.up(WEB)
    tasks = stack.ps()
    assert {str(tasks[t]["node"]) for t in ("client-n1", "client-n2", "client-n3")} == {"n1", "n2", "n3"}
    assert tasks["web-1"]["node"] != tasks["web-2"]["node"]
    hosts = {str(tasks[t]["id"])[:12] for t in ("web-1", "web-2")}
    for index in ("1", "2", "3"):
        found = stack.run("exec", "-T", "--index", index, "client", "sh", "-c", ASK % "web").stdout
        assert answers(found) <= hosts
        assert len(found.split()) == 8
        for name in ("web-1", "web-2"):  # each of them directly, across hosts
            one = stack.run("exec", "-T", "--index", index, "client", "sh", "-c", ASK % f"{stack.name}-{name}").stdout
            assert answers(one) == {str(tasks[name]["id"])[:12]}
    lookup = stack.run("exec", "-T", "client", "nslookup", "web").stdout
    assert "198.18." in lookup
    every = stack.run("exec", "-T", "client", "nslookup", "tasks.web").stdout
    assert all(next(iter(tasks[t]["addresses"].values())) in every for t in ("web-1", "web-2"))  # type: ignore[attr-defined]
    for address in ("10.99.0.1", "10.99.0.2", "10.99.0.3"):
        assert stack.pystack.on("outside", "curl", "-s", "-m", "5", f"http://{address}:18080").strip() in hosts
    loopback = stack.pystack.on("n3", "curl", "-s", "-m", "5", "http://127.0.0.1:18080").strip()
    assert loopback in hosts


def test_what_somebody_deletes_is_healed(stack: Stack) -> None:
    """FDB and neighbour entries, a route and the rules are back within seconds, with no restart (moby#52661)."""
    stack.up(WEB)
    link = stack.pystack.on("n3", "sh", "-c", "ip -br l | grep -o 'ps[0-9a-f]*x[0-9a-f]*'").split()[0]
    before = stack.pystack.on("n3", "bridge", "fdb", "show", "dev", link).count(" dst ")
    assert before >= 4
    stack.pystack.on(
        "n3",
        "sh",
        "-c",
        f"for m in $(bridge fdb show dev {link} | grep ' dst ' | cut -d' ' -f1); do "
        f"bridge fdb del $m dev {link} self; bridge fdb del $m dev {link} master; done; nft flush ruleset; "
        "ip neigh flush nud permanent; ip route del 172.18.0.0/24",
    )

    def healed() -> None:
        assert stack.pystack.on("n3", "bridge", "fdb", "show", "dev", link).count(" dst ") == before
        assert "dnat" in stack.pystack.on("n3", "nft", "list", "ruleset")
        assert "172.18.0.0/24" in stack.pystack.on("n3", "ip", "route")

    eventually(healed, 5)
    assert len(stack.run("exec", "-T", "--index", "3", "client", "sh", "-c", ASK % "web").stdout.split()) == 8


def test_a_partition_ends_and_all_is_as_before(stack: Stack) -> None:
    stack.up(WEB)
    lab = stack.pystack
    lab("lab", "fault", "--name", lab.lab, "partition", "n1,n2,outside", "n3")
    try:

        def down() -> None:
            rows = {r["name"]: r for r in lab.json("node", "ls", "--format", "json")}
            assert rows["n3"]["state"] == "down"
            assert rows["n3"]["error"]

        eventually(down, 15)
        assert stack.ps()["client-n3"]["state"] == "unknown"
        logs = stack.run("top")  # the others answer, and the missing one is named
        assert "client-n3 is left out" in logs.stderr
        assert "client-n2" in logs.stdout
    finally:
        lab("lab", "fault", "--name", lab.lab, "heal")

    def back() -> None:
        assert stack.ps()["client-n3"]["state"] == "running"

    eventually(back, 10)
    assert len(stack.run("exec", "-T", "--index", "3", "client", "sh", "-c", ASK % "web").stdout.split()) == 8


def test_constraints_decide_and_the_reasons_are_told(stack: Stack) -> None:
    stack.up("""
services:
  a:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    deploy: {placement: {constraints: ["node.labels.zone == b"]}}
  b:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    deploy: {replicas: 2, placement: {max_replicas_per_node: 1, constraints: ["node.labels.zone != b"]}}
  side:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    network_mode: service:a
""")
    tasks = stack.ps()
    assert tasks["a-1"]["node"] == "n3" == tasks["side-1"]["node"]
    assert {tasks["b-1"]["node"], tasks["b-2"]["node"]} == {"n1", "n2"}
    why = json.loads(stack.run("why", "--format", "json", "a-1").stdout)
    verdicts = {c["node"]: c for c in why["candidates"]}
    assert why["node"] == "n3"
    assert verdicts["n3"]["feasible"]
    assert not verdicts["n1"]["feasible"]
    assert any(not r["ok"] and "zone == b" in r["detail"] for r in verdicts["n1"]["reasons"])
    assert "max_replicas_per_node" in stack.run("why-not", "b", "n1").stdout


def test_an_impossible_constraint_starts_nothing(stack: Stack) -> None:
    done = stack.up(
        """
services:
  fine: {image: busybox, command: sleep 10000, stop_signal: SIGKILL}
  lost:
    image: busybox
    deploy: {placement: {constraints: ["node.labels.zone == mars"]}}
""",
        check=False,
    )
    assert done.returncode == 1
    assert all(node in done.stderr for node in ("n1:", "n2:", "n3:"))
    assert "node.labels.zone == mars" in done.stderr
    assert stack.ps() == {}


def test_depends_on_holds_across_hosts(stack: Stack) -> None:
    stack.up("""
services:
  first:
    image: busybox
    command: sh -c "sleep 1.5; date +%s > /tmp/ready; sleep 10000"
    stop_signal: SIGKILL
    healthcheck: {test: [CMD, test, -e, /tmp/ready], interval: 100ms, retries: 50}
    deploy: {placement: {constraints: [node.hostname == n3]}}
  second:
    image: busybox
    command: sh -c "date +%s > /tmp/started; sleep 10000"
    stop_signal: SIGKILL
    depends_on: {first: {condition: service_healthy}}
    deploy: {placement: {constraints: [node.hostname == n2]}}
""")
    # busybox counts whole seconds: one that did not wait would be started a second before
    assert int(stack.exec("first", "cat", "/tmp/ready")) <= int(stack.exec("second", "cat", "/tmp/started"))


def test_a_taint_keeps_tasks_off_and_sends_them_away(stack: Stack) -> None:
    lab = stack.pystack
    text = "services:\n  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, deploy: {replicas: 3}%s}\n"
    try:
        lab("node", "taint", "n2", "gpu=h100:NoSchedule")
        stack.up(text % "")
        assert {row["node"] for row in stack.ps().values()} == {"n1", "n3"}
        reasons = lab.json("why-not", "-p", stack.name, "web", "n2", "--format", "json")
        assert "gpu=h100:NoSchedule" in json.dumps(reasons)
        stack.up(text % ", x-placement: {tolerations: [gpu]}", "--force-recreate", "--scale", "web=6")
        assert {row["node"] for row in stack.ps().values()} == {"n1", "n2", "n3"}
        lab("node", "taint", "n3", "old:NoExecute")
        assert {row["node"] for row in stack.ps().values()} == {"n1", "n2"}
        refused = lab("node", "taint", "n3", "old:Never", check=False)
        assert refused.returncode == 1
        assert "NoExecute" in refused.stderr
    finally:
        lab("node", "taint", "n2", "gpu-")
        lab("node", "taint", "n3", "old-")


def test_a_drained_node_gives_its_tasks_away(stack: Stack) -> None:
    stack.up("services: {a: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, deploy: {replicas: 3}}}")
    lab = stack.pystack
    assert {str(t["node"]) for t in stack.ps().values()} == {"n1", "n2", "n3"}
    try:
        lab("node", "drain", "n2")
        tasks = stack.ps()
        assert len(tasks) == 3
        assert {str(t["node"]) for t in tasks.values()} == {"n1", "n3"}
        assert all(t["state"] == "running" for t in tasks.values())
    finally:
        lab("node", "activate", "n2")
    before = {name: t["id"] for name, t in stack.ps().items()}
    stack.run("up")
    assert {name: t["id"] for name, t in stack.ps().items()} == before, "tasks are not moved without need"


def test_services_on_a_bridge_share_a_host(stack: Stack) -> None:
    """`driver: bridge` asks for one host's network, so its services are placed together; others are spread as ever."""
    stack.up("""
services:
  a: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, networks: [near]}
  b: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, networks: [near]}
  c: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, networks: [near]}
  far: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, deploy: {replicas: 3}}
networks:
  near: {driver: bridge}
""")
    tasks = stack.ps()
    assert len({tasks[t]["node"] for t in ("a-1", "b-1", "c-1")}) == 1
    assert len({tasks[t]["node"] for t in ("far-1", "far-2", "far-3")}) == 3
    stack.run("exec", "-T", "a", "ping", "-c", "1", "-W", "2", "c")


def test_a_volume_keeps_its_users(stack: Stack) -> None:
    text = """
services:
  one: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, volumes: ["data:/data"]}
  two: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, volumes: ["data:/data"]}
volumes: {data: {}}
"""
    stack.up(text)
    tasks = stack.ps()
    assert tasks["one-1"]["node"] == tasks["two-1"]["node"]
    stack.exec("one", "sh", "-c", "echo kept > /data/file")
    home = tasks["one-1"]["node"]
    stack.up(text.replace("sleep 10000", "sleep 20000"))
    assert stack.ps()["two-1"]["node"] == home
    assert stack.exec("two", "cat", "/data/file") == "kept\n"


def test_an_agent_killed_on_a_far_node_changes_nothing(stack: Stack) -> None:
    stack.up(WEB)
    lab = stack.pystack
    before = {name: (t["id"], t["restarts"]) for name, t in stack.ps().items()}
    lab("lab", "fault", "--name", lab.lab, "kill", "n3", "agent")

    def back() -> None:
        rows = {r["name"]: r for r in lab.json("node", "ls", "--format", "json")}
        assert rows["n3"]["state"] == "ready"

    eventually(back, 15)
    assert {name: (t["id"], t["restarts"]) for name, t in stack.ps().items()} == before
    assert len(stack.run("exec", "-T", "--index", "3", "client", "sh", "-c", ASK % "web").stdout.split()) == 8


def test_adding_a_node_installs_its_agent(cluster: Pystack, tmp_path: Path) -> None:
    """`outside` has an sshd and nothing of ours: all that it needs is sent over."""
    unknown = cluster("node", "add", "root@10.99.0.254:2222", check=False)
    assert unknown.returncode == 1
    assert "does not answer over SSH" in unknown.stderr
    wrong = cluster("node", "add", "--host-key", "SHA256:nothing", "root@10.99.0.254", check=False)
    assert "shows the host key" in wrong.stderr
    cluster("node", "add", "root@10.99.0.254", "--label", "role=late", timeout=120)
    try:
        rows = {r["name"]: r for r in cluster.json("node", "ls", "--format", "json")}
        assert rows["outside"]["state"] == "ready"
        twin = cluster("node", "add", "root@10.99.0.254", check=False)
        assert "called outside already" in twin.stderr
        _upgraded(cluster, tmp_path)
    finally:
        cluster("node", "rm", "outside")
        pid = cluster.on("outside", "sh", "-c", "cat $PYSTACK_ROOT/agent.pid 2>/dev/null || true").strip()
        root = Path(cluster.environment["PYSTACK_ROOT"]).parent / "outside"
        pid = pid or (root / "agent.pid").read_text().strip()
        cluster.on("outside", "kill", pid)


LATE = """
services:
  kept:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    deploy: {placement: {constraints: [node.labels.role == late]}}
"""


def _upgraded(cluster: Pystack, place: Path) -> None:
    """The agent of `outside` is exchanged for one of other code, and its container runs on."""
    root = Path(cluster.environment["PYSTACK_ROOT"]).parent / "outside"
    current = root / "agent/current"
    digest, pid = current.read_text(), (root / "agent.pid").read_text()
    kept = Stack(cluster, place)
    kept.up(LATE)
    before = {name: (t["node"], t["id"], t["restarts"], t["started"]) for name, t in kept.ps().items()}
    assert [node for node, *_ in before.values()] == ["outside"]
    assert cluster("node", "upgrade", "outside").stdout.startswith("outside: ")
    assert (root / "agent.pid").read_text() == pid  # nothing to do
    current.write_text("older")
    (root / "agent/older").mkdir()
    (root / "agent/oldest").mkdir()
    assert cluster("node", "upgrade", "outside").stdout.startswith("outside: ")
    assert current.read_text() == digest
    assert (root / "agent.pid").read_text() != pid
    assert sorted(path.name for path in (root / "agent").iterdir()) == sorted(["current", digest.strip(), "older"])
    assert {name: (t["node"], t["id"], t["restarts"], t["started"]) for name, t in kept.ps().items()} == before
    kept.down()


def test_two_stacks_cannot_have_one_port(stack: Stack, tmp_path: Path) -> None:
    stack.up(WEB)
    other = Stack(stack.pystack, tmp_path / uuid.uuid4().hex[:4])
    other.directory.mkdir()
    done = other.up('services: {x: {image: busybox, command: sleep 1, ports: ["18080:80"]}}', check=False)
    assert done.returncode == 1
    assert "18080/tcp is already published by service web" in done.stderr


def test_a_port_of_a_far_task_answers_here(stack: Stack) -> None:
    import socket
    import subprocess
    import sys

    stack.up("""
services:
  quiet:
    image: busybox
    command: sh -c "mkdir /w; echo hidden > /w/index.html; exec httpd -f -p 127.0.0.1:80 -h /w"
    stop_signal: SIGKILL
    deploy: {placement: {constraints: [node.hostname == n3]}}
""")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "port-forward", "-p", stack.name, "quiet", f"{port}:80"],
        env=stack.pystack.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert "quiet-1:80" in process.stdout.readline()

        def answer() -> None:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                text = b""
                while data := client.recv(4096):
                    text += data
            assert b"hidden" in text

        eventually(answer, 10)
        eventually(answer, 1)
    finally:
        process.kill()
        process.communicate()


def test_a_container_run_by_hand_reaches_tasks_elsewhere(stack: Stack) -> None:
    """`run` places its container, gives it an address that all nodes know of, and takes it back."""
    stack.up(WEB)
    hosts = {str(t["id"])[:12] for name, t in stack.ps().items() if name.startswith("web")}
    for _ in range(3):  # each next one goes where fewest are
        done = stack.run("run", "--rm", "-T", "--no-deps", "client", "sh", "-c", ASK % "web" + "; exit 7", check=False)
        assert done.returncode == 7, done.stderr
        assert answers(done.stdout) <= hosts
        assert len(done.stdout.split()) == 8
    stack.run("run", "-d", "--name", "visitor", "--no-deps", "client", "sh", "-c", "nc -l -p 99 -e hostname; sleep 100")

    def heard() -> None:
        assert stack.run("exec", "-T", "--index", "2", "client", "nc", "-w", "2", "visitor", "99", check=False).stdout.strip()

    eventually(heard, 10)
    assert "visitor" not in stack.ps()
    assert "visitor" not in stack.run("up").stderr, "up leaves it alone"
    assert "remove task visitor" in stack.run("down").stderr


def test_rebalance_evens_out_after_a_node_returns(stack: Stack) -> None:
    lab = stack.pystack
    lab("node", "drain", "n3")
    try:
        stack.up("services: {a: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, deploy: {replicas: 6}}}")
        assert {str(t["node"]) for t in stack.ps().values()} == {"n1", "n2"}
    finally:
        lab("node", "activate", "n3")
    proposed = lab.json("rebalance", "--plan", "--format", "json")
    assert [m["target"] for m in proposed] == ["n3", "n3"]
    assert {str(t["node"]) for t in stack.ps().values()} == {"n1", "n2"}, "a plan moves nothing"
    lab("rebalance")
    tasks = stack.ps()
    assert sorted(str(t["node"]) for t in tasks.values()) == ["n1", "n1", "n2", "n2", "n3", "n3"]
    assert all(t["state"] == "running" for t in tasks.values())
    assert lab.json("rebalance", "--plan", "--format", "json") == []


def test_small_files_of_the_project_reach_every_node(stack: Stack) -> None:
    (stack.directory / "app.conf").write_text("one")
    (stack.directory / "conf.d").mkdir()
    (stack.directory / "conf.d" / "more").write_text("more")
    text = """
services:
  web:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    deploy: {replicas: 3}
    volumes: ["./app.conf:/etc/app.conf", "./conf.d:/etc/conf.d:ro"]
  other: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
"""
    said = stack.up(text).stderr
    assert "app.conf is sent along as it is now (3 bytes)" in said
    assert {row["node"] for row in stack.ps().values()} == {"n1", "n2", "n3"}
    for index in ("1", "2", "3"):
        seen = stack.run("exec", "-T", "--index", index, "web", "cat", "/etc/app.conf", "/etc/conf.d/more").stdout
        assert seen == "onemore"
    before = stack.ps()
    stack.run("up")
    assert {t: r["id"] for t, r in stack.ps().items()} == {t: r["id"] for t, r in before.items()}
    (stack.directory / "app.conf").write_text("two")
    stack.run("up")
    after = stack.ps()
    assert after["other-1"]["id"] == before["other-1"]["id"]
    assert stack.run("exec", "-T", "--index", "3", "web", "cat", "/etc/app.conf").stdout == "two"


def test_published_ports_go_to_the_nodes_own_tasks_or_to_all_alike(stack: Stack, cluster: Pystack) -> None:
    """One file, changed: nothing of the tasks is replaced for it."""
    address = {r["name"]: r["underlay"] for r in cluster.json("node", "ls", "--format", "json")}["n1"]
    ask = f"for i in $(seq 60); do curl -s -m 3 http://{address}:18081; done"
    stack.up(PUBLISHED % "local-first")
    ids = {name: row["id"] for name, row in stack.ps().items()}
    assert len(answers(cluster.on("outside", "sh", "-c", ask))) == 1
    stack.up(PUBLISHED % "balanced")
    assert {name: row["id"] for name, row in stack.ps().items()} == ids
    assert len(answers(cluster.on("outside", "sh", "-c", ask))) == 3
