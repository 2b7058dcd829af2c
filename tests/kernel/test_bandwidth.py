"""`x-bandwidth`: limits that the kernel keeps, changed in place, shown, repaired, gone with their container."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lab import lab as labs
from tests.conftest import Pystack, Stack, eventually

pytestmark = pytest.mark.kernel
FILE = """
services:
  a: {{image: busybox, command: sleep 1000, stop_grace_period: 0s{service}}}
  b: {{image: busybox, command: sleep 1000, stop_grace_period: 0s}}
networks: {{default: {network}}}
"""


def buckets(lab: Pystack, node: str = "n1") -> dict[str, int]:
    """Link → the rate of its token bucket, in bits a second."""
    words = ["nsenter", "-t", lab.pid(node), "-n", "tc", "-json", "qdisc", "show"]
    rows = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return {row["dev"]: row["options"]["rate"] * 8 for row in rows if row["kind"] == "tbf"}


def endpoint(lab: Pystack, task: str) -> dict[str, Any]:
    document = lab.json("container", "inspect", task)
    found = document[0] if isinstance(document, list) else document
    return dict(next(iter(found["NetworkSettings"]["Networks"].values())))


SINK = """
import socket
s = socket.create_server(("", 7000)); print("listens", flush=True); c = s.accept()[0]
while c.recv(1 << 16): pass
"""
POUR = """
import socket, sys
c = socket.create_connection((sys.argv[1], 7000)); print("connected", flush=True)
while True: c.send(bytes(1 << 14))
"""


def beside(lab: Pystack, row: dict[str, object], program: str, *arguments: str) -> subprocess.Popen[str]:
    """*program* in the network namespace of a task; returns when it has said its first line."""
    root = Path(lab.environment["PYSTACK_ROOT"]).parent
    node = str(row["node"])
    net = f"--net={root}/{node}/run/netns/{str(row['id'])[:16]}"
    words = [*labs.enter(labs.find(lab.lab), node), "nsenter", net, sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    assert process.stdout.readline()
    return process


def test_a_limit_is_kept_changed_in_place_shown_and_taken_away(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE.format(service=", x-bandwidth: {ingress: 20mbit}", network="{x-bandwidth: {egress: 10mbit}}"))
    rows = stack.ps()
    assert sorted(buckets(lab).values()) == [10_000_000, 10_000_000, 20_000_000]  # b has what its network says
    assert endpoint(lab, f"{stack.name}-a-1")["Bandwidth"] == {"Ingress": 20_000_000, "Egress": 10_000_000, "Burst": 0}
    used = {row["task"]: row["limits"] for row in json.loads(stack.run("stats", "--format", "json").stdout)}
    assert used[f"{stack.name}-a-1"] == {"eth0": {"ingress": 20_000_000, "egress": 10_000_000}}
    assert "20mbit/10mbit" in stack.run("stats", "--no-stream").stdout
    address = next(iter(rows["a-1"]["addresses"].values()))  # type: ignore[attr-defined]
    receiver = beside(lab, rows["a-1"], SINK)
    sender = None
    try:
        sender = beside(lab, rows["b-1"], POUR, address)
        stack.up(FILE.format(service=", x-bandwidth: {ingress: 40mbit, egress: unlimited}", network="{}"))
        assert {name: row["id"] for name, row in stack.ps().items()} == {name: row["id"] for name, row in rows.items()}
        assert list(buckets(lab).values()) == [40_000_000]
        assert (receiver.poll(), sender.poll()) == (None, None)
        assert stack.run("plan", "--exit-code").returncode == 0
        stack.write(FILE.format(service="", network="{}"))
        assert "its bandwidth on" in stack.run("plan").stdout
        stack.up()
        assert buckets(lab) == {}
        links = subprocess.run(["nsenter", "-t", lab.pid("n1"), "-n", "ip", "-d", "link"], capture_output=True, text=True)
        assert "ifb" not in links.stdout
        assert (receiver.poll(), sender.poll()) == (None, None)
    finally:
        for process in (receiver, sender):
            if process:
                os.killpg(process.pid, signal.SIGKILL)  # nsenter's child too, which holds the pipe
                process.communicate()


def test_what_somebody_takes_away_is_found_and_put_back(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE.format(service=", x-bandwidth: {ingress: 20mbit, egress: 10mbit}", network="{}"))
    before = buckets(lab)
    veth, ifb = (next(name for name, rate in before.items() if rate == wanted) for wanted in (20_000_000, 10_000_000))
    for words in (("qdisc", "del", "dev", veth, "root"), ("qdisc", "del", "dev", veth, "ingress")):
        subprocess.run(["nsenter", "-t", lab.pid("n1"), "-n", "tc", *words], check=True)
    wrong = [f for f in json.loads(lab("doctor", "--format", "json", check=False).stdout) if not f["ok"]]
    assert [(f["check"], f["detail"]) for f in wrong] == [
        ("bandwidth", "what is received is unlimited and should be 20000000 bit/s"),
        ("bandwidth", f"what is sent does not pass {ifb}"),
    ]
    lab("doctor", "--repair")
    assert buckets(lab) == before
    # the link on which packets wait may go, too: what passes it would be lost
    subprocess.run(["nsenter", "-t", lab.pid("n1"), "-n", "ip", "link", "del", ifb], check=True)

    def healed() -> None:
        assert buckets(lab) == before

    eventually(healed, 10)
    assert lab("doctor", check=False).returncode == 0


def test_a_container_outside_of_stacks_is_limited_by_hand(lab: Pystack) -> None:
    lab("container", "run", "-d", "--name", "limited", "busybox", "sleep", "1000")
    try:
        lab("container", "update", "limited", "--bandwidth", "ingress=5mbit,egress=1mbit", "-m", "64m")
        assert sorted(buckets(lab).values()) == [1_000_000, 5_000_000]
        lab("container", "update", "limited", "--bandwidth", "bridge:egress=unlimited")
        assert list(buckets(lab).values()) == [5_000_000]
        lab("container", "restart", "-t", "0", "limited")
        assert list(buckets(lab).values()) == [5_000_000]
        wrong = lab("container", "update", "limited", "--bandwidth", "other:egress=1mbit", check=False)
        assert wrong.returncode == 1
        assert "is not on network other" in wrong.stderr
    finally:
        lab("container", "rm", "-f", "limited")
    assert buckets(lab) == {}
