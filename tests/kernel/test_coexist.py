"""Other firewalls on the host that drop what they do not know, as Docker's and ufw's do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.kernel
FILE = """
services:
  web:
    image: busybox
    command: httpd -f -p 80 -h /var/www
    stop_signal: SIGKILL
    ports: ["18095:80"]
"""
SERVE = (
    "import socket; s = socket.create_server(('10.99.0.254', 7100)); print('on', flush=True)\n"
    "while True: c, _ = s.accept(); c.send(b'hello'); c.close()"
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    """A lab of its own: the default bridge, which the first single container makes, stays, and what it needs with it."""
    with cluster_of(1) as pystack:
        yield pystack


def test_what_others_drop_in_passing_reaches_containers(stack: Stack, lab: Pystack) -> None:
    def rules() -> str:
        return lab.on("n1", "iptables", "-S", "FORWARD")

    def both_ways() -> None:
        assert lab.on("outside", "curl", "-s", "-m", "2", "http://10.99.0.1:18095/") == "it works\n"
        assert stack.exec("web", "timeout", "2", "nc", "10.99.0.254", "7100", check=False) == "hello"

    with subprocess.Popen(
        ["nsenter", "-t", lab.pid(), "-n", sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout
            server.stdout.readline()
            stack.up(FILE)
            both_ways()
            assert "pystack" not in rules()  # nothing is touched where nothing is dropped
            for program in ("iptables", "ip6tables"):
                lab.on("n1", program, "-P", "FORWARD", "DROP")  # as Docker does when it starts
            eventually(both_ways, 10)
            lab.on("n1", "iptables", "-F", "FORWARD")  # as a firewall does when it is loaded anew
            eventually(both_ways, 10)
            assert rules().count("pystack") == 2
            found = json.loads(lab("doctor", "--format", "json").stdout)
            assert [f for f in found if f["check"] == "forward" and f["ok"]]
            stack.down()

            def gone() -> None:
                assert "pystack" not in rules()

            eventually(gone, 5)
            stack.up(FILE)  # what was so before the first container came is seen too
            both_ways()
        finally:
            for program in ("iptables", "ip6tables"):
                lab.on("n1", program, "-P", "FORWARD", "ACCEPT")
            server.kill()
