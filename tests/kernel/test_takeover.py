"""Three servers on three real etcd members: one leads, another takes over, and the containers never notice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

MANY = "services:\n" + "".join(f"  s{n}: {{image: busybox, command: sleep 10000, stop_signal: SIGKILL}}\n" for n in range(24))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Pystack]:
    if not shutil.which("etcd"):
        pytest.skip("etcd is not installed (etcd-server)")
    with cluster_of(3, servers=3) as pystack:
        yield pystack


@pytest.fixture
def stack(cluster: Pystack, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(cluster, tmp_path)
    yield made
    eventually(lambda: led(cluster), 30)
    made.down()


def led(cluster: Pystack) -> None:
    """Somebody leads, and has all nodes."""
    done = cluster("node", "ls", "--format", "json", check=False)
    assert done.returncode == 0, done.stderr
    assert "s ago" not in done.stderr
    assert [row["state"] for row in json.loads(done.stdout)] == ["ready"] * 3


def leader(cluster: Pystack) -> str:
    for node in ("n1", "n2", "n3"):
        host = f"unix:///var/lib/pystack-lab/{cluster.lab}/{node}/run/pystack.sock"
        one = Pystack(cluster.lab)
        one.environment = {**cluster.environment, "PYSTACK_HOST": host}
        done = one("node", "ls", check=False)
        if done.returncode == 0 and "s ago" not in done.stderr:
            return node
    raise AssertionError("nobody leads")


def containers(cluster: Pystack) -> dict[str, set[str]]:
    """Runtime processes' containers, as the machines themselves know them."""
    root = Path(f"/var/lib/pystack-lab/{cluster.lab}")
    return {n: {p.name for p in (root / n / "containers").iterdir()} for n in ("n1", "n2", "n3")}


def test_another_server_ends_an_up_and_starts_nothing_twice(stack: Stack, cluster: Pystack) -> None:
    first = leader(cluster)
    Path(f"/var/lib/pystack-lab/{cluster.lab}/{first}/failpoint").write_text("network.attach:5")
    cluster("lab", "fault", "--name", cluster.lab, "kill", first, "server")  # the next one there dies in the middle of it
    eventually(lambda: led(cluster), 30)
    stack.write(MANY)
    stack.run("up", check=False)
    eventually(lambda: led(cluster), 30)
    before = containers(cluster)
    stack.run("up")
    rows = stack.ps()
    assert len(rows) == 24
    assert {row["state"] for row in rows.values()} == {"running"}
    after = containers(cluster)
    assert sum(map(len, after.values())) == 24
    assert all(before[n] <= after[n] for n in after)  # what ran is what runs


def test_the_leaders_machine_goes_and_the_others_go_on(stack: Stack, cluster: Pystack) -> None:
    (stack.directory / "pw").write_text("sesame")
    stack.up(
        "services:\n  a: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, deploy: {mode: global}, secrets: [pw]}\n"
        "secrets: {pw: {file: pw}}\n"
    )
    first = leader(cluster)
    ids = {name: row["id"] for name, row in stack.ps().items()}
    cluster("lab", "fault", "--name", cluster.lab, "crash", first)
    try:
        done = cluster("ls", check=False)  # it waits for the next one to lead
        assert (done.returncode, done.stderr) == (0, "no server leads: waiting for one to take over\n")
        assert stack.name in done.stdout

        def taken_over() -> None:
            done = cluster("node", "ls", "--format", "json", check=False)
            assert done.returncode == 0
            assert "s ago" not in done.stderr
            assert sum(row["state"] == "ready" for row in json.loads(done.stdout)) == 2

        eventually(taken_over, 40)
        assert leader(cluster) != first
        rows = stack.ps()
        assert {n: r["id"] for n, r in rows.items() if r["state"] == "running"} == {
            n: i for n, i in ids.items() if not n.endswith(first)
        }
        # another server, on another host, can open what the first one sealed
        seen = stack.run("run", "--rm", "-T", "--no-deps", "a", "cat", "/run/secrets/pw")
        assert seen.stdout == "sesame"
    finally:
        cluster("lab", "fault", "--name", cluster.lab, "boot", first)
    eventually(lambda: led(cluster), 40)


def test_the_server_that_leads_can_be_killed_by_that_name(cluster: Pystack) -> None:
    eventually(lambda: led(cluster), 40)
    first = leader(cluster)
    pid = Path(f"/var/lib/pystack-lab/{cluster.lab}/{first}/run/server.pid")
    before = pid.read_text()
    assert cluster("lab", "fault", "--name", cluster.lab, "kill", "leader").stdout == f"{first}\n"
    eventually(lambda: led(cluster), 40)
    assert pid.read_text() != before  # it was that one which ended, and runs again


def test_a_leader_that_hangs_is_succeeded_before_its_lease_ends(cluster: Pystack) -> None:
    eventually(lambda: led(cluster), 40)
    root = Path(f"/var/lib/pystack-lab/{cluster.lab}")
    before = {n: (root / n / "server.log").stat().st_size for n in ("n1", "n2", "n3")}
    first = cluster("lab", "fault", "--name", cluster.lab, "pause", "leader").stdout.strip()
    try:

        def succeeded() -> None:
            said = [(root / n / "server.log").read_text()[before[n] :] for n in before if n != first]
            assert any(f"server {first} is silent and does not renew its lease" in text for text in said)

        eventually(succeeded, 20)
    finally:
        cluster("lab", "fault", "--name", cluster.lab, "resume", first, "server")
    eventually(lambda: led(cluster), 40)
    assert leader(cluster) != first


def test_no_server_that_leads_is_said(cluster: Pystack) -> None:
    paused = cluster("lab", "fault", "--name", cluster.lab, "pause", "leader").stdout.strip()
    others = {"n1", "n2", "n3"} - {paused}
    for other in others:
        cluster("lab", "fault", "--name", cluster.lab, "pause", other, "server")
    try:
        done = cluster("lab", "fault", "--name", cluster.lab, "kill", "leader", check=False)
        assert done.returncode == 1
        assert "no server leads now" in done.stderr
    finally:
        for node in (paused, *others):
            cluster("lab", "fault", "--name", cluster.lab, "resume", node, "server")
    eventually(lambda: led(cluster), 40)


def test_every_server_is_a_manager(stack: Stack, cluster: Pystack) -> None:
    stack.up(
        "services:\n  a: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, deploy: {mode: global, "
        "placement: {constraints: [node.role == manager]}}}\n"
    )
    assert {row["node"] for row in stack.ps().values()} == {"n1", "n2", "n3"}


def answers_alone(cluster: Pystack, stack: Stack, node: str, ids: dict[str, object]) -> None:
    """The server of *node* says what runs, how old that is, and lets in to each node."""
    alone = Pystack(cluster.lab)
    alone.environment = {
        **cluster.environment,
        "PYSTACK_HOST": f"unix:///var/lib/pystack-lab/{cluster.lab}/{node}/run/pystack.sock",
    }
    seen = alone("ps", "-p", stack.name, "-f", str(stack.file), "--format", "json", check=False)
    assert "s ago: the store does not answer" in seen.stderr
    assert {row["task"]: (row["id"], row["state"]) for row in json.loads(seen.stdout)} == {
        f"{stack.name}-{n}": (i, "running") for n, i in ids.items()
    }
    for index in "123":
        words = ("exec", "-T", "--index", index, "a", "echo", "here")
        assert alone(words[0], "-p", stack.name, "-f", str(stack.file), *words[1:]).stdout == "here\n"
    rows = json.loads(alone("node", "ls", "--format", "json").stdout)
    assert [row["state"] for row in rows] == ["ready"] * 3


@pytest.mark.long
def test_without_a_quorum_nothing_is_said_and_nothing_stops(stack: Stack, cluster: Pystack) -> None:
    command = 'sh -c "echo I am $$HOSTNAME; exec sleep 10000"'
    stack.up(f"services:\n  a: {{image: busybox, command: '{command}', stop_signal: SIGKILL, deploy: {{mode: global}}}}\n")
    ids = {name: row["id"] for name, row in stack.ps().items()}
    for node in ("n2", "n3"):
        cluster.on(node, "pkill", "-STOP", "-x", "etcd")
    try:

        def said() -> None:
            done = cluster("up", "-p", "another", "-f", str(stack.file), check=False)
            assert done.returncode == 1
            assert "containers keep running" in done.stderr

        eventually(said, 40)

        # what was known is told, with its age; nothing is changed
        def remembered() -> None:
            seen = stack.run("ps", "--format", "json", check=False)
            assert "s ago: the store does not answer" in seen.stderr
            known = {row["task"]: row["id"] for row in json.loads(seen.stdout)}
            assert known == {f"{stack.name}-{n}": i for n, i in ids.items()}

        eventually(remembered, 20)
        # what goes on in containers needs no leader, on whichever node they are
        said_by = {line.split("I am ")[1] for line in stack.run("logs", "--no-log-prefix").stdout.splitlines()}
        assert said_by == {str(i)[:12] for i in ids.values()}
        for index in "123":
            assert stack.run("exec", "-T", "--index", index, "a", "echo", "here").stdout == "here\n"
        # each server knows it, though only one of them led since this stack is there
        for node in ("n1", "n2", "n3"):
            eventually(partial(answers_alone, cluster, stack, node, ids), 30)
        refused = stack.run("stop", check=False)
        assert refused.returncode == 1
        assert "nothing can be read or changed" in refused.stderr
    finally:
        for node in ("n2", "n3"):
            cluster.on(node, "pkill", "-CONT", "-x", "etcd")
    eventually(lambda: led(cluster), 40)
    assert {name: row["id"] for name, row in stack.ps().items()} == ids
