"""Paths between nodes that carry less than their links say: measured, and the overlay made to fit while it is in use."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.kernel
FILE = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; head -c 3000000 /dev/zero > /w/large; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    deploy: {mode: global}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        yield pystack


def narrow(lab: Pystack, mtu: int) -> None:
    """The switch's port to n2 carries no larger packets; n2 does not know."""
    subprocess.run(["nsenter", "-t", lab.pid("switch"), "-n", "ip", "link", "set", "p-n2", "mtu", str(mtu)], check=True)


def test_a_narrow_path_is_found_and_networks_fit_it(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)
    before = {name: row["id"] for name, row in stack.ps().items()}
    goal = f"http://{stack.name}-web-n2/large"

    def mtu() -> str:
        return stack.run("exec", "-T", "--index", "1", "web", "cat", "/sys/class/net/eth0/mtu").stdout.strip()

    def fetch() -> str:
        ask = ("exec", "-T", "--index", "1", "web", "sh", "-c", f"timeout 5 wget -qO- {goal} | wc -c")
        return stack.run(*ask, check=False).stdout.strip()

    assert (mtu(), fetch()) == ("1450", "3000000")
    narrow(lab, 1400)
    try:
        # TCP's large segments pass virtual links whole; the echoes of the doctor are single packets
        found = json.loads(lab("doctor", "--format", "json", check=False).stdout)
        assert any(f["check"] == "path-mtu" and "--repair" in f["fix"] for f in found if not f["ok"])
        lab("doctor", "--repair", check=False)

        def fits() -> None:
            assert mtu() == "1350"
            assert fetch() == "3000000"

        eventually(fits, 10)
        assert {name: row["id"] for name, row in stack.ps().items()} == before
        assert lab("doctor", check=False).returncode == 0
    finally:
        narrow(lab, 1500)
    lab("doctor", "--repair", check=False)

    def wide() -> None:
        assert (mtu(), fetch()) == ("1450", "3000000")

    eventually(wide, 10)
    lab.on("n2", "ip", "link", "set", "eth0", "mtu", "1300")  # the node's own link: it hears of that itself

    def own() -> None:
        assert stack.run("exec", "-T", "--index", "2", "web", "cat", "/sys/class/net/eth0/mtu").stdout.strip() == "1250"

    eventually(own, 10)
    lab.on("n2", "ip", "link", "set", "eth0", "mtu", "1500")


def test_a_node_behind_a_narrow_path_is_measured_as_it_comes(lab: Pystack) -> None:
    lab("node", "rm", "n2", "--force")
    narrow(lab, 1432)
    try:
        lab("node", "add", "root@10.99.0.2", "--name", "n2", timeout=120)
        assert 1432 <= json.loads(lab("node", "inspect", "n2").stdout)["mtu"] <= 1436  # a bridge leaves room for a VLAN tag
    finally:
        narrow(lab, 1500)
