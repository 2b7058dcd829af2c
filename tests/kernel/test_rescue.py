"""A node dies: what can run elsewhere does, with the same names and addresses; what cannot waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.long

RESCHEDULE_S = 5
"""What `reschedule_after` is here; a machine that answers has 30 s."""
FILE = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    hostname: web
    deploy: {replicas: 3, placement: {max_replicas_per_node: 2}}
    ports: ["18070:80"]
  pinned:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    restart: always
    deploy: {placement: {constraints: [node.hostname == n3]}}
  everywhere:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    deploy: {mode: global}
  job:
    image: busybox
    command: sh -c "while [ ! -e /tmp/go ]; do sleep 0.2; done"
    stop_signal: SIGKILL
    deploy: {mode: replicated-job, replicas: 3, placement: {max_replicas_per_node: 2}}
  once:
    image: busybox
    command: sh -c "while [ ! -e /tmp/go ]; do sleep 0.2; done"
    stop_signal: SIGKILL
    deploy: {mode: replicated-job, replicas: 3, restart_policy: {condition: none}, placement: {max_replicas_per_node: 1}}
  done:
    image: busybox
    command: "true"
    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(3) as pystack:
        Path(f"{pystack.environment['PYSTACK_ROOT']}/config.yml").write_text(f"reschedule_after: {RESCHEDULE_S}s\n")
        pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")
        eventually(lambda: ready(pystack, {"n1", "n2", "n3"}), 20)
        yield pystack


def ready(lab: Pystack, names: set[str]) -> None:
    done = lab("node", "ls", "--format", "json", check=False)
    assert done.returncode == 0
    rows = lab.json("node", "ls", "--format", "json")
    assert {r["name"] for r in rows if r["state"] == "ready"} == names


def up(stack: Stack) -> None:
    tasks = stack.ps()
    assert {t["state"] for name, t in tasks.items() if not name.startswith("done")} == {"running"}
    assert {t["state"] for name, t in tasks.items() if name.startswith("done")} == {"exited"}


def test_tasks_of_a_dead_node_go_to_others_and_stay(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE, "--no-wait")
    eventually(lambda: up(stack), 30)
    before = stack.ps()
    (working,) = (name for name, t in before.items() if t["node"] == "n3" and t["service"] == "job")
    (bound,) = (name for name, t in before.items() if t["node"] == "n3" and t["service"] == "once")
    (moving,) = (name for name, t in before.items() if t["node"] == "n3" and t["service"] == "web")
    lab("lab", "fault", "--name", lab.lab, "crash", "n3")

    def moved() -> None:
        now = stack.ps()
        assert now[moving]["node"] in ("n1", "n2")
        assert now[moving]["state"] == "running"
        assert now[working]["node"] in ("n1", "n2")  # a job goes on elsewhere, unless it may begin once alone
        assert now[working]["state"] == "running"
        runs = {r["service"]: r for r in lab.json("job", "history", "-p", stack.name, "--format", "json")}
        assert runs["once"]["state"] == "failed"
        assert f"{bound}: its node n3 is lost" in runs["once"]["reason"]

    eventually(moved, 40)
    now = stack.ps()
    assert now[bound]["node"] == "n3"
    assert now[moving]["addresses"] == before[moving]["addresses"]
    assert now["pinned-1"]["state"] == "unknown"  # nobody else may have it
    assert now["everywhere-n3"]["node"] == "n3"
    assert {n: t["node"] for n, t in now.items() if t["service"] == "done"} == {
        n: t["node"] for n, t in before.items() if t["service"] == "done"
    }  # it had ended
    others = {n: t["id"] for n, t in before.items() if t["node"] != "n3"}
    assert {n: now[n]["id"] for n in others} == others  # nothing else was touched

    def all_answer() -> None:
        address = next(iter(now[moving]["addresses"].values()))  # type: ignore[attr-defined]
        for index in ("n1", "n2"):
            ask = ("exec", "-T", "--index", str(1 if index == "n1" else 2), "everywhere", "timeout", "3", "wget", "-qO-")
            assert stack.run(*ask, f"http://{address}/", check=False).stdout.strip() == "web"

    eventually(all_answer, 10)
    assert stack.run("plan", "--exit-code", check=False).returncode in (1, 2)  # the pinned one is missed, and said
    lab("lab", "fault", "--name", lab.lab, "boot", "n3")
    eventually(lambda: ready(lab, {"n1", "n2", "n3"}), 30)

    def settled() -> None:
        back = stack.ps()
        assert back["pinned-1"]["state"] == "running"
        assert back[moving]["id"] == now[moving]["id"]  # it stays where it went
        assert f"{stack.name}-{moving}" not in lab.on(
            "n3",
            "curl",
            "-s",
            "--unix-socket",
            "/var/lib/pystack-lab/" + lab.lab + "/n3/run/docker.sock",
            "http://d/containers/json?all=1",
        )

    eventually(settled, 30)


def test_an_agent_that_hangs_keeps_its_tasks(lab: Pystack, stack: Stack) -> None:
    """Its machine answers, so its containers run: it has more time than a dead one."""
    stack.up(FILE, "--no-wait")
    eventually(lambda: up(stack), 30)
    before = {n: (t["node"], t["id"]) for n, t in stack.ps().items()}
    lab("lab", "fault", "--name", lab.lab, "pause", "n3", "agent")
    try:
        eventually(lambda: ready(lab, {"n1", "n2"}), 15)
        begun = time.monotonic()
        while time.monotonic() - begun < 2 * RESCHEDULE_S:
            assert {n: (t["node"], t["id"]) for n, t in stack.ps().items()} == before
            time.sleep(0.5)
    finally:
        lab("lab", "fault", "--name", lab.lab, "resume", "n3", "agent")
    eventually(lambda: ready(lab, {"n1", "n2", "n3"}), 30)
    eventually(lambda: up(stack), 30)
    assert {n: (t["node"], t["id"]) for n, t in stack.ps().items()} == before


def test_a_server_that_hears_nobody_moves_nothing(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE, "--no-wait")
    eventually(lambda: up(stack), 30)
    before = {n: t["node"] for n, t in stack.ps().items()}
    lab("lab", "fault", "--name", lab.lab, "partition", "n1", "n2,n3,outside")
    try:
        eventually(lambda: ready(lab, {"n1"}), 25)

        def said() -> None:
            assert "more than half of all nodes are silent" in Path(f"/var/lib/pystack-lab/{lab.lab}/n1/server.log").read_text()

        eventually(said, 30)
        assert {n: t["node"] for n, t in stack.ps().items()} == before
    finally:
        lab("lab", "fault", "--name", lab.lab, "heal")
    eventually(lambda: ready(lab, {"n1", "n2", "n3"}), 30)


def test_a_server_that_was_cut_off_gives_the_nodes_their_time_again(lab: Pystack, stack: Stack) -> None:
    """They answer one after the other when it is back: none of them was away, and nothing is moved."""
    stack.up(FILE, "--no-wait")
    eventually(lambda: up(stack), 30)
    before = {n: (t["node"], t["id"]) for n, t in stack.ps().items()}
    log = Path(f"/var/lib/pystack-lab/{lab.lab}/n1/server.log")
    said = log.read_text().count("more than half of all nodes are silent")
    lab("lab", "fault", "--name", lab.lab, "cut", "n1")
    try:

        def isolated() -> None:
            assert log.read_text().count("more than half of all nodes are silent") > said

        eventually(isolated, 40)
    finally:
        lab("lab", "fault", "--name", lab.lab, "heal", "n1")
    eventually(lambda: ready(lab, {"n1", "n2", "n3"}), 30)
    assert {n: (t["node"], t["id"]) for n, t in stack.ps().items()} == before
