"""A node that hangs, dies or is cut off: the others work on without waiting for it, and nothing is sent there any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.long

WEB = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    restart: always
    deploy: {%s, endpoint_mode: vip}
  client:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    deploy: {placement: {constraints: [node.hostname == n1]}}
"""
NEAR = """
services:
  near:
    image: busybox
    command: sh -c "echo said; exec sleep 10000"
    stop_signal: SIGKILL
    deploy: {placement: {constraints: [node.hostname == n2]}}
"""
FAULTS = {
    "dead": ("crash", "boot", ("n3",)),
    "cut off": ("cut", "heal", ("n3",)),
    "hung": ("pause", "resume", ("n3", "agent")),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(3) as pystack:
        # what happens before tasks are moved is looked at here
        Path(f"{pystack.environment['PYSTACK_ROOT']}/config.yml").write_text("reschedule_after: 60s\n")
        pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")
        eventually(lambda: _is(states(pystack), dict.fromkeys(("n1", "n2", "n3"), "ready")), 20)
        yield pystack


def states(lab: Pystack) -> dict[str, str]:
    if lab("node", "ls", check=False).returncode:  # its server begins anew
        return {}
    return {r["name"]: r["state"] for r in lab.json("node", "ls", "--format", "json")}


@contextmanager
def fault(lab: Pystack, kind: str, end: str, *words: str) -> Iterator[None]:
    lab("lab", "fault", "--name", lab.lab, kind, *words)
    try:
        yield
    finally:
        lab("lab", "fault", "--name", lab.lab, end, *words)
        eventually(lambda: _is(states(lab), dict.fromkeys(("n1", "n2", "n3"), "ready")), 60)


def _is(found: object, wanted: object) -> None:
    assert found == wanted


def test_an_agent_that_hangs_holds_nobody_up(stack: Stack, lab: Pystack, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever concerns other nodes is done at once, and what concerns this one is said to be unknown."""
    stack.up(WEB % "mode: global")
    near = Stack(lab, tmp_path_factory.mktemp("near"))
    before = {name: row["id"] for name, row in stack.ps().items()}
    with fault(lab, "pause", "resume", "n3", "agent"):
        begun = time.monotonic()
        near.up(NEAR)
        lab("doctor", check=False)
        assert near.run("exec", "-T", "near", "echo", "here").stdout == "here\n"
        assert "said" in near.run("logs").stdout
        near.run("stats")
        assert "web-n2" in stack.run("stats").stdout
        assert time.monotonic() - begun < 25 * PATIENCE
        eventually(lambda: _is(states(lab)["n3"], "down"), 12)
        row = stack.ps()["web-n3"]
        assert (row["state"], row["id"]) == ("unknown", before["web-n3"])
        assert "has sent nothing for 6 s" in str(row["error"])
        assert "does not answer" in stack.run("exec", "-T", "--index", "3", "web", "true", check=False).stderr
        near.down()
    eventually(lambda: _is({name: row["state"] for name, row in stack.ps().items()}, dict.fromkeys(before, "running")))
    assert {name: row["id"] for name, row in stack.ps().items()} == before


@pytest.mark.parametrize("deploy", ["replicas: 3", "mode: global"])
@pytest.mark.parametrize(("kind", "end", "words"), FAULTS.values(), ids=FAULTS)
def test_replicas_of_a_silent_node_leave_their_services_address(
    stack: Stack, lab: Pystack, deploy: str, kind: str, end: str, words: tuple[str, ...]
) -> None:
    """At once when the node is known to be silent, and not when its tasks are given to others; they come back with it."""
    stack.up(WEB % deploy)
    (name,) = (n for n, row in stack.ps().items() if n.startswith("web") and row["node"] == "n3")
    (address,) = stack.ps()[name]["addresses"].values()  # type: ignore[attr-defined]

    def behind() -> bool:
        return f": {address}" in lab.on("n1", "nft", "list", "ruleset")

    eventually(lambda: _is(behind(), True))
    with fault(lab, kind, end, *words):
        eventually(lambda: _is(behind(), False), 15)
        assert stack.ps()[name]["node"] == "n3"  # it was not rescheduled yet
        ask = "for n in 1 2 3 4 5 6 7 8; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 web 80 | tail -1; done"
        assert len(stack.exec("client", "sh", "-c", ask).split()) == 8
    eventually(lambda: _is(behind(), True), 20)


def test_nodes_judge_each_other_without_a_server(stack: Stack, lab: Pystack) -> None:
    """The only server is gone with its node: the others see for themselves who answers."""
    stack.up(WEB.replace("node.hostname == n1", "node.hostname == n2") % "mode: global")
    (address,) = stack.ps()["web-n1"]["addresses"].values()  # type: ignore[attr-defined]

    def behind(node: str) -> bool:
        return f": {address}" in lab.on(node, "nft", "list", "ruleset")

    eventually(lambda: _is((behind("n2"), behind("n3")), (True, True)))
    with fault(lab, "crash", "boot", "n1"):
        eventually(lambda: _is((behind("n2"), behind("n3")), (False, False)), 15)
    eventually(lambda: _is((behind("n2"), behind("n3")), (True, True)), 30)


PINNED = """
services:
  db:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    restart: always
    deploy: {placement: {constraints: [node.hostname == n3]}}
  web: {image: busybox, command: sleep %d, stop_signal: SIGKILL, deploy: {replicas: 2}}
"""


def test_a_service_bound_to_a_dead_node_does_not_hold_the_others_up(stack: Stack, lab: Pystack) -> None:
    stack.up(PINNED % 10000)
    before = stack.ps()
    with fault(lab, "crash", "boot", "n3"):
        eventually(lambda: _is(states(lab)["n3"], "down"), 20)
        done = stack.up(PINNED % 20000)
        assert f"{stack.name}-db-1 is left as it is: node n3 does not answer" in done.stderr
        after = stack.ps()
        assert all(after[t]["state"] == "running" and after[t]["id"] != before[t]["id"] for t in ("web-1", "web-2"))
        assert (after["db-1"]["node"], after["db-1"]["state"]) == ("n3", "unknown")
    eventually(lambda: _is(stack.ps()["db-1"]["state"], "running"), 20)


EVERYWHERE = """
services:
  all:
    image: busybox
    command: sleep %d
    stop_signal: SIGKILL
    restart: always
    deploy: {mode: global}
"""


def test_what_runs_everywhere_stays_on_a_dead_node_and_follows_when_it_is_back(stack: Stack, lab: Pystack) -> None:
    stack.up(EVERYWHERE % 10000)
    before = stack.ps()
    with fault(lab, "crash", "boot", "n3"):
        eventually(lambda: _is(states(lab)["n3"], "down"), 20)
        assert f"{stack.name}-all-n3" not in stack.run("plan").stdout
        done = stack.up(EVERYWHERE % 20000)
        assert f"{stack.name}-all-n3 is changed when its node is back: node n3 does not answer" in done.stderr
        assert set(stack.ps()) == set(before)

    def changed() -> None:  # its old container may run for a moment, until the server has reached it
        after = stack.ps()
        assert {r["state"] for r in after.values()} == {"running"}
        assert not {r["id"] for r in after.values()} & {r["id"] for r in before.values()}

    eventually(changed, 20)


def test_a_new_leader_sends_connections_where_the_last_one_did(tmp_path: Path) -> None:
    """It has not heard all nodes when it writes its first manifests."""
    with cluster_of(3, servers=3) as lab:
        stack = Stack(lab, tmp_path)
        stack.up(WEB.replace("node.hostname == n1", "node.hostname == n3") % "replicas: 6")
        ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 web 80 | grep -q ."
        loop = f"while [ ! -e /stop ]; do {ask} && echo ok >> /log || echo lost >> /log; done"
        stack.run("exec", "-d", "client", "sh", "-c", loop)
        for _ in range(2):
            lab("lab", "fault", "--name", lab.lab, "kill", "leader")
            eventually(lambda: _is(lab("ls", check=False).returncode, 0), 30)
            eventually(lambda: _is(states(lab), dict.fromkeys(("n1", "n2", "n3"), "ready")), 60)
        stack.exec("client", "touch", "/stop")
        said = stack.exec("client", "cat", "/log").split()
        assert len(said) > 20
        assert "lost" not in said
