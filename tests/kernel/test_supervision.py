"""What serves containers is back when it ends or hangs; restart policies end where they say; who is late waits its turn."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Pystack, Stack, eventually
from tests.daemons import process_of

NAMES = """
services:
  a: {image: busybox, command: sleep 10000, stop_signal: SIGKILL}
  b:
    image: busybox
    command: httpd -f -p 80 -h /var/www
    stop_signal: SIGKILL
    ports: ["127.0.0.1:18095:80"]
"""


def dataplane(lab: Pystack) -> int:
    found = lab.on("n1", "pgrep", "-f", "netplugins.dataplane", check=False).split()
    assert len(found) == 1
    return int(found[0])


@pytest.mark.parametrize(("number", "within_s"), [("KILL", 1.0), ("STOP", 14.0)], ids=["killed", "hung"])
def test_names_and_ports_are_back_by_themselves(stack: Stack, lab: Pystack, number: str, within_s: float) -> None:
    """Nothing of the manifest changes: nobody else would notice."""
    stack.up(NAMES)
    old = dataplane(lab)
    rows = {name: row["id"] for name, row in stack.ps().items()}
    since = f"{time.time():.6f}"  # the other case of this test had its event a moment ago
    lab.on("n1", "kill", f"-{number}", str(old))

    def another() -> None:
        assert dataplane(lab) != old

    begun = time.monotonic()
    eventually(another, within_s + 10)
    assert time.monotonic() - begun < within_s * PATIENCE + 1.5  # looking takes its time, too

    def served() -> None:
        assert stack.exec("a", "nslookup", "b", check=False).count("Address") >= 2
        assert lab.on("n1", "curl", "-s", "-m", "2", "http://127.0.0.1:18095/").strip() == "it works"

    eventually(served, 5)
    assert {name: row["id"] for name, row in stack.ps().items()} == rows
    api = f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"

    def told_once() -> None:
        until = int(time.time()) + 1
        said = lab.on("n1", "curl", "-s", "--unix-socket", api, f"http://node/events?since={since}&until={until}")
        events = [json.loads(line) for line in said.splitlines()]
        told = [e["Actor"]["Attributes"]["reason"] for e in events if e["Actor"]["ID"] == "dataplane"]
        assert told == [{"KILL": "ended", "STOP": "did not answer for 5 s"}[number]]

    eventually(told_once)


@contextmanager
def throttled(pid: int) -> Iterator[None]:
    """The process gets a millisecond of CPU a second, until this ends. Source: cgroups(7), sched-bwc."""
    old = Path("/sys/fs/cgroup/cpu")
    root = old if old.is_dir() else Path("/sys/fs/cgroup")
    before = next(line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if root != old or ":cpu:" in line)
    group = root / f"pystack-test-{pid}"
    group.mkdir()
    try:
        if root == old:
            (group / "cpu.cfs_period_us").write_text("1000000")
            (group / "cpu.cfs_quota_us").write_text("1000")
        else:
            (root / "cgroup.subtree_control").write_text("+cpu")
            (group / "cpu.max").write_text("1000 1000000")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with contextlib.suppress(OSError):  # it ended
            (root / before.split(":", 2)[2].lstrip("/") / "cgroup.procs").write_text(str(pid))
        eventually(lambda: _removed(group), 20)


def _removed(group: Path) -> None:
    with contextlib.suppress(OSError):
        group.rmdir()
    assert not group.exists()


def test_who_waits_for_a_processor_does_not_hang(stack: Stack, lab: Pystack) -> None:
    """Another one in its place would be slower still: on a busy machine there would be none in the end."""
    stack.up(NAMES)
    old = dataplane(lab)
    path = f"{lab.environment['PYSTACK_ROOT']}/run/dataplane.sock"
    with contextlib.ExitStack() as clients, throttled(process_of(path)):
        for _ in range(50):  # who have it do more than it can
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(path)
            client.send(b"counts\n" * 200)
        until = time.monotonic() + 14
        while time.monotonic() < until:
            assert dataplane(lab) == old
    assert stack.exec("a", "nslookup", "b", check=False).count("Address") >= 2


@pytest.mark.parametrize(("condition", "code"), [("any", 0), ("any", 3), ("on-failure", 3)])
def test_max_attempts_ends_every_condition(stack: Stack, condition: str, code: int) -> None:
    stack.up(
        f"""
services:
  a:
    image: busybox
    command: sh -c "exit {code}"
    deploy: {{restart_policy: {{condition: {condition}, delay: 50ms, max_attempts: 2}}}}
""",
        "-d",
        check=False,
    )

    def ended() -> None:
        row = stack.ps()["a-1"]
        assert (row["state"], row["restarts"], row["exit_code"]) == ("exited", 2, code)

    eventually(ended, 15)
    ended()


def test_who_listens_late_gets_no_connection_before(stack: Stack, lab: Pystack) -> None:
    """However late it is, as long as another replica listens: no request is refused."""
    text = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; mkdir /v/first || sleep 8; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    ports: ["18096:80"]
    volumes: ["v:/v"]
volumes: {v: {}}
"""
    stack.up(text)
    ask = "for n in $(seq 40); do curl -s -m 3 http://10.99.0.1:18096/ || echo refused; done"
    eventually(lambda: _only_answers(lab, ask))
    stack.run("scale", "web=2")
    seen: set[str] = set()
    begun = time.monotonic()
    while len(seen) < 2 and time.monotonic() < begun + 40 * PATIENCE:
        seen |= _only_answers(lab, ask)
    assert len(seen) == 2


def _only_answers(lab: Pystack, ask: str) -> set[str]:
    found = set(lab.on("outside", "sh", "-c", ask).split())
    assert found - {"refused"} == found
    return found
