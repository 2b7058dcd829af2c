"""`data_path_port` in config.yml of a server: another UDP port for new overlays, beside those that were there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually
from tests.kernel.attacks import Attacker
from tests.kernel.test_nodes_closed import off, without

pytestmark = pytest.mark.kernel
FILE = """
services:
  a: {image: busybox, command: httpd -f -p 80 -h /srv, deploy: {mode: global}, stop_grace_period: 0s}
"""
PAGE = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode())"
FORGED = """
import socket, struct, sys
node, port = sys.argv[1], int(sys.argv[2])
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(struct.pack("!BxxxI", 8, 99 << 8) + bytes(40), (node, port))
"""


def ports(lab: Pystack, node: str) -> list[int]:
    links = json.loads(lab.on(node, "ip", "-json", "-d", "link", "show", "type", "vxlan"))
    return sorted(one["linkinfo"]["info_data"]["port"] for one in links)


def reaches(stack: Stack) -> None:
    one, other = Attacker(stack, "a-n1"), Attacker(stack, "a-n2")
    for client, server in ((one, other), (other, one)):
        assert client.run(PAGE, f"http://{server.addresses[f'{stack.name}_default']}/hello") == "hello from the image"


def test_new_overlays_have_the_port_that_is_set_and_old_ones_keep_theirs(tmp_path: Path) -> None:
    with cluster_of(2) as lab:
        old, new = (Stack(lab, tmp_path / name) for name in ("old", "new"))
        for one in (old, new):
            one.directory.mkdir()
        old.up(FILE)
        assert ports(lab, "n1") == ports(lab, "n2") == [4789]
        Path(f"/var/lib/pystack-lab/{lab.lab}/n1/config.yml").write_text("data_path_port: 4790\n")
        lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")
        eventually(lambda: ready(lab), 20)
        new.up(FILE)
        for node in ("n1", "n2"):
            assert ports(lab, node) == [4789, 4790]
            rules = lab.on(node, "nft", "list", "ruleset")
            assert "udp dport { 4789, 4790 } ip saddr != @peers4 drop" in rules
        for one in (old, new):
            eventually(lambda one=one: reaches(one))  # type: ignore[misc]
        told = [c for c in json.loads(lab("doctor", "--format", "json").stdout) if c["check"] == "vxlan-port"]
        assert [(c["target"], c["ok"]) for c in told] == [(f"{old.name}_default", True)]
        assert "4789" in told[0]["detail"]
        attacker = Attacker(new, "a-n1")
        assert not forged_arrives(attacker)
        with without(lab, "n1", *off("to_node", "return")):
            assert forged_arrives(attacker)
        old.down()
        old.up()  # made again: it has the port that is set
        eventually(lambda: reaches(old))
        assert ports(lab, "n1") == ports(lab, "n2") == [4790, 4790]
        assert "udp dport 4790 ip saddr != @peers4 drop" in lab.on("n2", "nft", "list", "ruleset")
        new.down()
        old.down()


def forged_arrives(attacker: Attacker) -> bool:
    """Whether n2 gets a VXLAN packet of VNI 99 that a container sends to the port of the overlays there."""
    on = attacker.lab.on
    seen = "udp dport 4790 @th,64,32 0x08000000 @th,96,24 99 counter"
    hook = "type filter hook prerouting priority -400;"
    on("n2", "nft", f"add table inet seen; add chain inet seen in {{ {hook} }}; add rule inet seen in {seen}")
    try:
        attacker.run(FORGED, "10.99.0.2", "4790")
        return "counter packets 0 " not in on("n2", "nft", "list", "table", "inet", "seen")
    finally:
        on("n2", "nft", "delete", "table", "inet", "seen")


def ready(lab: Pystack) -> None:
    done = lab("node", "ls", "--format", "json", check=False)
    assert done.returncode == 0
    assert [row["state"] for row in json.loads(done.stdout)] == ["ready"] * 2
