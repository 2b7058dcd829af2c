"""Configs and secrets on real nodes: sealed on the way, in memory where they are used; who uses them rolls when they change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

FILE = """
services:
  a:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    deploy: {mode: global}
    secrets: [pw, {source: ext, target: other, mode: 0400, uid: "7", gid: "8"}]
    configs: [{source: conf, target: /etc/app.conf}]
  b: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
secrets: {pw: {file: pw.txt}, ext: {external: true, name: %s}}
configs: {conf: {content: "%s"}}
"""

SPARE = """
services:
  a:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    environment: {V: "%s"}
    deploy: {replicas: 1, update_config: {order: start-first, monitor: 100ms}}
    secrets: [pw]
secrets: {pw: {file: pw.txt}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        yield pystack


@pytest.fixture
def stack(cluster: Pystack, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(cluster, tmp_path)
    (tmp_path / "pw.txt").write_text("hunter2-plain")
    yield made
    made.down()


def ids(stack: Stack) -> dict[str, object]:
    return {name: row["id"] for name, row in stack.ps().items()}


def test_secrets_are_plain_only_in_the_memory_of_the_nodes_that_need_them(stack: Stack, cluster: Pystack) -> None:
    name = f"{stack.name}-ext"
    text = FILE % (name, "one")
    refused = stack.up(text, check=False)
    assert refused.returncode == 1
    assert f"secrets.ext: external secret {name} does not exist: `pystack secret create {name} FILE`" in refused.stderr
    cluster("secret", "create", name, stdin="topsecret-plain")
    shown = stack.run("plan").stdout + stack.up(text).stdout + stack.run("plan", "--json").stdout
    shown += stack.run("history", "--format", "json").stdout + cluster("secret", "inspect", name).stdout
    assert "-plain" not in shown
    for node in ("n1", "n2"):
        ident = str(stack.ps()[f"a-{node}"]["id"])
        said = cluster.on(node, "sh", "-c", f"cat /proc/mounts; ls {_root(cluster, node)}/run/containers/{ident}*/")
        assert any(f"/{ident[:12]}" in line and line.split()[2] == "tmpfs" for line in said.splitlines() if "/secrets" in line)
        text_of = cluster("container", "inspect", f"{stack.name}-a-{node}").stdout if node == "n1" else ""
        assert "-plain" not in text_of
    for index in ("1", "2"):
        seen = stack.run(
            "exec",
            "--index",
            index,
            "a",
            "sh",
            "-c",
            "cat /run/secrets/pw /run/secrets/other /etc/app.conf; stat -c '%a %u %g' /run/secrets/other; "
            "grep -c ' /run/secrets/pw tmpfs ro' /proc/mounts",
        ).stdout
        assert seen == "hunter2-plaintopsecret-plainone400 7 8\n1\n"
    clear = [
        p
        for p in Path(f"/var/lib/pystack-lab/{cluster.lab}").rglob("*")
        if p.is_file() and "/run/" not in str(p) and b"-plain" in p.read_bytes()
    ]
    assert clear == []
    in_use = cluster("secret", "rm", name, check=False)
    assert f"secret {name} is used by stack {stack.name}" in in_use.stderr
    stack.run("down")
    assert "/secrets" not in cluster.on("n2", "cat", "/proc/mounts")
    cluster("secret", "rm", name)


def test_exactly_the_users_of_a_changed_content_roll(stack: Stack, cluster: Pystack) -> None:
    name = f"{stack.name}-ext"
    cluster("secret", "create", name, stdin="one")
    stack.up(FILE % (name, "one"))
    before = ids(stack)
    for change in ("content", "file", "replaced"):
        if change == "content":
            stack.write(FILE % (name, "two"))
        elif change == "file":
            (stack.directory / "pw.txt").write_text("hunter3")
        else:
            cluster("secret", "create", "--replace", name, stdin="two")
        plan = json.loads(stack.run("plan", "--json").stdout)
        todo = {(s["action"], s["name"].removeprefix(f"{stack.name}-")) for s in plan["steps"] if s["action"] != "none"}
        assert todo >= {("replace", "a-n1"), ("replace", "a-n2")}
        assert len(todo) == 3  # and the content itself
        stack.run("up")
        after = ids(stack)
        assert after["b-1"] == before["b-1"]
        assert all(after[n] != before[n] for n in ("a-n1", "a-n2"))
        before = after
    assert stack.exec("a", "cat", "/run/secrets/other") == "two"
    stack.run("rollback")  # to the revision before: what an external one contained then
    assert stack.exec("a", "sh", "-c", "cat /run/secrets/pw /run/secrets/other") == "hunter3one"


def test_a_spare_task_has_its_secrets_on_a_node_that_never_had_one(tmp_path: Path) -> None:
    """With order start-first the new task comes before the old one goes, and here beside it on the other node."""
    (tmp_path / "pw.txt").write_text("hunter2-plain")
    with cluster_of(2) as fresh:
        made = Stack(fresh, tmp_path)
        for value in ("one", "two"):
            made.up(SPARE % value)
            assert made.exec("a", "sh", "-c", "cat /run/secrets/pw; echo $V") == f"hunter2-plain{value}\n"
        made.down()


def test_a_container_run_by_hand_has_the_services_secrets(stack: Stack, cluster: Pystack) -> None:
    name = f"{stack.name}-ext"
    cluster("secret", "create", name, stdin="one")
    stack.write(FILE % (name, "one"))
    done = stack.run("run", "--rm", "-T", "--no-deps", "a", "cat", "/run/secrets/pw", "/etc/app.conf")
    assert done.stdout == "hunter2-plainone"


def test_an_agent_that_starts_again_restarts_a_task_with_its_secrets(stack: Stack, cluster: Pystack) -> None:
    name = f"{stack.name}-ext"
    cluster("secret", "create", name, stdin="one")
    stack.up((FILE % (name, "one")).replace("    deploy:", "    restart: always\n    deploy:"))
    cluster("lab", "fault", "--name", cluster.lab, "crash", "n2")
    cluster("lab", "fault", "--name", cluster.lab, "boot", "n2")

    def answers() -> None:
        for index in ("1", "2"):
            seen = stack.run("exec", "-T", "--index", index, "a", "cat", "/run/secrets/pw", check=False)
            assert seen.stdout == "hunter2-plain"

    eventually(answers, 20)


def _root(cluster: Pystack, node: str) -> str:
    return f"/var/lib/pystack-lab/{cluster.lab}/{node}"
