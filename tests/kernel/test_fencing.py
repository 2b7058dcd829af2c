"""A node that was away does not do again what others do by now: it hears first what is still its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

NAMES = {"n1", "n2", "n3"}
FILE = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    restart: always
    hostname: web
    deploy: {replicas: 3, endpoint_mode: vip, placement: {max_replicas_per_node: 2}}
  everywhere: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, restart: always, deploy: {mode: global}}
"""
PINNED = """
services:
  soon:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    restart: always
    x-fence: 2s
    deploy: {placement: {constraints: [node.hostname == n3]}}
  sure:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    restart: always
    x-fence: strict
    deploy: {placement: {constraints: [node.hostname == n3]}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(3) as pystack:
        Path(f"{pystack.environment['PYSTACK_ROOT']}/config.yml").write_text("reschedule_after: 8s\n")
        pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")
        eventually(lambda: ready(pystack, NAMES), 30)
        yield pystack


def ready(lab: Pystack, names: set[str]) -> None:
    done = lab("node", "ls", "--format", "json", check=False)
    assert done.returncode == 0
    assert {r["name"] for r in json.loads(done.stdout) if r["state"] == "ready"} == names


def containers(lab: Pystack, node: str) -> dict[str, str]:
    """The state of each container of *node*, by name, as its own agent says."""
    socket = f"/var/lib/pystack-lab/{lab.lab}/{node}/run/docker.sock"
    said = lab.on(node, "curl", "-sf", "--unix-socket", socket, "http://d/containers/json?all=1", check=False)
    assert said, "the agent does not answer yet"
    return {c["Names"][0].lstrip("/"): c["State"] for c in json.loads(said)}


def started(lab: Pystack, node: str) -> set[str]:
    """The names of the containers that were started since *node* was booted."""
    log = Path(f"/var/lib/pystack-lab/{lab.lab}/{node}/run/events.jsonl")
    # the machine's /run is a tmpfs that the host sees too
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {e["Actor"]["Attributes"]["name"] for e in events if (e["Type"], e["Action"]) == ("container", "start")}


def underlay(lab: Pystack, node: str) -> str:
    (row,) = (r for r in lab.json("node", "ls", "--format", "json") if r["name"] == node)
    return str(row["underlay"])


def test_a_node_that_was_removed_while_it_was_dead_hears_of_it(lab: Pystack, stack: Stack) -> None:
    """It starts nothing, takes away what it has, and the others take no packet of its."""
    stack.up(FILE)
    address = underlay(lab, "n3")
    lab("lab", "fault", "--name", lab.lab, "crash", "n3")
    eventually(lambda: ready(lab, {"n1", "n2"}), 20)
    lab("node", "rm", "--force", "n3")

    def settled() -> None:
        rows = stack.ps()
        assert {r["node"] for r in rows.values()} == {"n1", "n2"}
        assert {name for name, r in rows.items() if r["state"] != "running"} == set()

    eventually(settled, 20)
    for node in ("n1", "n2"):
        assert address not in lab.on(node, "nft", "list", "ruleset").partition("set peers4")[2].partition("}")[0]
        assert f"dst {address}" not in lab.on(node, "bridge", "fdb", "show")
    lab("lab", "fault", "--name", lab.lab, "boot", "n3")
    eventually(lambda: _is(containers(lab, "n3"), {}), 30)
    assert started(lab, "n3") == set()
    assert stack.run("plan", "--exit-code").returncode == 0
    lab("node", "add", f"root@{address}", "--name", "n3")
    eventually(lambda: ready(lab, NAMES), 30)
    stack.up(FILE)
    eventually(lambda: _is(containers(lab, "n3").get(f"{stack.name}-everywhere-n3"), "running"), 20)


def test_a_task_that_went_elsewhere_is_not_started_by_a_node_that_boots(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)
    (moving,) = (name for name, r in stack.ps().items() if (r["node"], r["service"]) == ("n3", "web"))
    lab("lab", "fault", "--name", lab.lab, "crash", "n3")
    eventually(lambda: _is((stack.ps()[moving]["node"] != "n3", stack.ps()[moving]["state"]), (True, "running")), 40)
    lab("lab", "fault", "--name", lab.lab, "boot", "n3")
    eventually(lambda: _is(containers(lab, "n3"), {f"{stack.name}-everywhere-n3": "running"}), 40)
    assert started(lab, "n3") == {f"{stack.name}-everywhere-n3"}


def test_without_a_control_plane_a_booted_node_starts_what_may_run_twice(lab: Pystack, stack: Stack) -> None:
    """After a bounded time; what must not waits for as long as it takes."""
    stack.up(PINNED)
    soon, sure = f"{stack.name}-soon-1", f"{stack.name}-sure-1"
    for node in ("n1", "n3"):
        lab("lab", "fault", "--name", lab.lab, "crash", node)
    lab("lab", "fault", "--name", lab.lab, "boot", "n3")
    eventually(lambda: _is(containers(lab, "n3").get(soon), "running"), 30)
    assert containers(lab, "n3")[sure] != "running"
    lab("lab", "fault", "--name", lab.lab, "boot", "n1")
    eventually(lambda: _is(containers(lab, "n3"), {soon: "running", sure: "running"}), 40)
    eventually(lambda: ready(lab, NAMES), 30)


STRICT = """
services:
  only:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    restart: always
    x-fence: strict
    deploy: {placement: {constraints: [node.hostname != n1]}}
"""


def moments(lab: Pystack, node: str, action: str) -> list[int]:
    """When containers of *node* started or ended since it was booted, in nanoseconds; all machines have one clock."""
    log = Path(f"/var/lib/pystack-lab/{lab.lab}/{node}/run/events.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [e["timeNano"] for e in events if (e["Type"], e["Action"]) == ("container", action)]


def test_a_strict_task_has_ended_before_it_begins_elsewhere(lab: Pystack, stack: Stack) -> None:
    """Its node is cut off, and is well: it runs what may run twice, and stops what must not."""
    stack.up(STRICT)
    first = str(stack.ps()["only-1"]["node"])
    (second,) = {"n2", "n3"} - {first}
    before = len(moments(lab, first, "die")), len(moments(lab, second, "start"))
    lab("lab", "fault", "--name", lab.lab, "cut", first)
    try:
        eventually(lambda: _is((stack.ps()["only-1"]["node"], stack.ps()["only-1"]["state"]), (second, "running")), 90)
        ended, begun = moments(lab, first, "die")[before[0] :], moments(lab, second, "start")[before[1] :]
        assert len(ended) == len(begun) == 1
        assert ended[0] < begun[0]
    finally:
        lab("lab", "fault", "--name", lab.lab, "heal", first)
    eventually(lambda: ready(lab, NAMES), 30)
    eventually(lambda: _is(containers(lab, first), {}), 20)


def _is(found: object, wanted: object) -> None:
    assert found == wanted
