"""`--transport etcd`: nodes read their manifests themselves, each its own alone, whether a server reaches them or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplugins.kernel import features
from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.kernel
TEXT = (
    "services: {a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, deploy: {replicas: 3}, "
    "environment: {V: '%s'}}}\n"
)
NO_SSH = "add table inet t; add chain inet t c { type filter hook input priority -10; }; add rule inet t c tcp dport 22 drop"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Pystack]:
    with cluster_of(3, servers=1, transport="etcd") as lab:
        yield lab


@pytest.fixture
def stack(cluster: Pystack, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(cluster, tmp_path)
    yield made
    made.down()


def access(cluster: Pystack, node: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(Path(f"/var/lib/pystack-lab/{cluster.lab}/{node}/etcd.json").read_text())
    return found


def ask(cluster: Pystack, user: dict[str, str], *words: str) -> str:
    """What etcd answers to a node's own credentials."""
    login = f"{user['user']}:{user['password']}"
    command = f"ETCDCTL_API=3 etcdctl --endpoints http://10.99.0.1:2379 --user {login} {' '.join(words)} 2>&1"
    return cluster.on("n2", "sh", "-c", command, check=False)


def test_a_stack_runs_on_nodes_that_read_it_themselves(stack: Stack, cluster: Pystack) -> None:
    assert {r["name"]: r["transport"] for r in cluster.json("node", "ls", "--format", "json")} == {
        "n1": "ssh",
        "n2": "etcd",
        "n3": "etcd",
    }
    stack.up(TEXT % "one")
    assert {r["node"] for r in stack.ps().values()} == {"n1", "n2", "n3"}
    stack.up(TEXT % "two")
    for index in ("1", "2", "3"):
        assert stack.run("exec", "-T", "--index", index, "a", "sh", "-c", "echo $V").stdout == "two\n"


def test_an_encrypted_network_reaches_nodes_that_read_it_themselves(stack: Stack, cluster: Pystack) -> None:
    """Its tunnels are a part of the manifest like any other."""
    if "wireguard" not in features():
        pytest.skip("no WireGuard, neither in the kernel nor wireguard-go")
    stack.up(TEXT.rstrip() % "one" + "\nnetworks: {default: {driver: overlay, driver_opts: {encrypted: ''}}}\n")
    assert {r["node"] for r in stack.ps().values()} == {"n1", "n2", "n3"}
    for index in ("1", "2", "3"):
        for other in ("1", "2", "3"):
            stack.run("exec", "-T", "--index", index, "a", "ping", "-c", "1", "-W", "5", f"{stack.name}-a-{other}")


def test_a_node_reads_its_own_and_nothing_else(stack: Stack, cluster: Pystack) -> None:
    stack.up(TEXT % "one")
    mine = access(cluster, "n2")
    assert "head" in ask(cluster, mine, "get", "--prefix", mine["prefix"], "--keys-only")
    for other in ("/pystack/manifests/n3/", "/pystack/", "/pystack/stacks/", "/"):
        assert "permission denied" in ask(cluster, mine, "get", "--prefix", other, "--keys-only")
    for words in (("put", f"{mine['prefix']}head", "x"), ("del", f"{mine['prefix']}head")):
        assert "permission denied" in ask(cluster, mine, *words)
    assert "cancel" in ask(cluster, mine, "watch", "--prefix", "/pystack/manifests/n3/", "</dev/null")


def test_what_changes_reaches_a_node_that_no_server_reaches(stack: Stack, cluster: Pystack) -> None:
    stack.up(TEXT % "one")
    name = next(task for task, row in stack.ps().items() if row["node"] == "n3")
    cluster.on("n3", "nft", NO_SSH)
    try:

        def lost() -> None:
            rows = {r["name"]: r["state"] for r in cluster.json("node", "ls", "--format", "json")}
            assert rows["n3"] == "down"

        eventually(lost, 60)
        assert f"{stack.name}-{name}" in _containers(cluster, "n3")
        stack.run("down")
        eventually(lambda: _gone(cluster, f"{stack.name}-{name}"), 20)
    finally:
        cluster.on("n3", "nft", "delete table inet t")

    def back() -> None:
        rows = {r["name"]: r["state"] for r in cluster.json("node", "ls", "--format", "json")}
        assert rows["n3"] == "ready"

    eventually(back, 60)


def _containers(cluster: Pystack, node: str) -> str:
    socket = f"/var/lib/pystack-lab/{cluster.lab}/{node}/run/docker.sock"
    return cluster.on(node, "curl", "-s", "--unix-socket", socket, "http://node/containers/json?all=1")


def _gone(cluster: Pystack, name: str) -> None:
    assert name not in _containers(cluster, "n3")


def test_an_agent_and_a_server_that_are_killed_go_on(stack: Stack, cluster: Pystack) -> None:
    stack.up(TEXT % "one")
    before = {t: r["id"] for t, r in stack.ps().items()}
    cluster("lab", "fault", "--name", cluster.lab, "kill", "n2", "agent")
    cluster("lab", "fault", "--name", cluster.lab, "kill", "n1", "server")

    def same() -> None:
        done = stack.run("ps", "--format", "json", check=False)
        assert done.returncode == 0
        rows = {r["task"].removeprefix(f"{stack.name}-"): r for r in json.loads(done.stdout)}
        assert {t: r["id"] for t, r in rows.items()} == before
        assert {r["state"] for r in rows.values()} == {"running"}

    eventually(same, 30)
    stack.up(TEXT % "two")
    assert {r["state"] for r in stack.ps().values()} == {"running"}


def test_a_node_that_goes_loses_its_credentials(cluster: Pystack) -> None:
    mine = access(cluster, "n3")
    cluster("node", "rm", "n3")
    assert "authentication failed" in ask(cluster, mine, "get", mine["prefix"])
    assert not Path(f"/var/lib/pystack-lab/{cluster.lab}/n3/etcd.json").exists()
