"""Each layer of a node's networks is broken by hand, and the doctor is asked which one it is.

The agents' own healing is off (`heal: false` in their config.yml), so that what is broken stays so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Stack, cluster_of, eventually

STACK = """
services:
  web:
    image: busybox
    command: httpd -f -p 80 -h /etc
    stop_signal: SIGKILL
    ports: ["18080:80"]
    deploy: {mode: global, endpoint_mode: vip}
  lan:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    networks: [lan]
    deploy: {mode: global}
networks:
  lan:
    driver: macvlan
    driver_opts: {parent: eth0}
    ipam: {config: [{subnet: 10.99.0.0/24, ip_range: 10.99.0.64/26}]}
"""
FDB = "bridge fdb show dev $VXLAN | grep ' dst 10.99.0.3' | head -1 | cut -d' ' -f1"
INSIDE = "nsenter --net=$ROOT/run/netns/$WEB"
BLOCK = "nft add table inet t; nft add chain inet t c '{ type filter hook input priority -300; }'; nft add rule inet t c"

REPAIRED = {  # what is done to n2: the layer that the doctor must name, and a command
    "bridge down": ("link", "ip link set $BRIDGE down"),
    "bridge with a wrong MTU": ("mtu", "ip link set $BRIDGE mtu 1300"),
    "bridge without its address": ("address", "ip address flush dev $BRIDGE scope global"),
    "route gone": ("route", "ip route delete $(ip route show dev $BRIDGE | head -1)"),
    "veth down": ("link", "ip link set $VETH down"),
    "veth off its bridge": ("bridge-port", "ip link set $VETH nomaster"),
    "veth gone": ("link", "ip link delete $VETH"),
    "vxlan gone": ("vxlan", "ip link delete $VXLAN"),
    "vxlan down": ("link", "ip link set $VXLAN down"),
    "vxlan off its bridge": ("bridge-port", "ip link set $VXLAN nomaster"),
    "vxlan with another VNI": (
        "vxlan",
        "ip link delete $VXLAN; ip link add $VXLAN type vxlan id 99 dstport 4789 "
        "local 10.99.0.2; ip link set $VXLAN master $BRIDGE mtu 1450 up",
    ),
    "vxlan from a wrong address": (
        "vxlan",
        "ip link delete $VXLAN; ip link add $VXLAN type vxlan id $((0x1001)) dstport 4789 "
        "local 127.0.0.1; ip link set $VXLAN master $BRIDGE mtu 1450 up",
    ),
    "FDB entry gone": ("fdb", f"bridge fdb del $({FDB}) dev $VXLAN self dst 10.99.0.3"),
    "FDB entry to a wrong node": ("fdb", f"m=$({FDB}); bridge fdb replace $m dev $VXLAN self dst 10.99.0.9"),
    "neighbour gone": ("neighbour", "ip neigh flush dev $BRIDGE nud permanent"),
    "neighbour with a wrong MAC": (
        "neighbour",
        "ip neigh replace $(ip neigh show dev $BRIDGE nud permanent | head -1 | "
        "cut -d' ' -f1) lladdr 02:00:00:00:00:01 dev $BRIDGE nud permanent",
    ),
    "table gone": ("firewall", "nft delete table inet $TABLE"),
    "chain emptied": (
        "firewall",
        "nft flush chain inet $TABLE $(nft list table inet $TABLE | grep -m1 -o 'chain [a-z_0-9]*' | cut -d' ' -f2)",
    ),
    "rule added to ours": (
        "firewall",
        "nft add rule inet $TABLE $(nft list table inet $TABLE | grep -m1 -o 'chain [a-z_0-9]*' "
        "| cut -d' ' -f2) ip daddr 192.0.2.1 drop",
    ),
    "forwarding off": ("sysctl", "echo 0 > /proc/sys/net/ipv4/ip_forward"),
    "forwarding off on a bridge": ("sysctl", "echo 0 > /proc/sys/net/ipv4/conf/$BRIDGE/forwarding"),
    "container's link down": ("container-link", f"{INSIDE} ip link set eth0 down"),
    "container's link gone": ("container-link", f"{INSIDE} ip link delete eth0"),
    "container's MTU": ("mtu", f"{INSIDE} ip link set eth0 mtu 1280"),
    "container's address gone": ("container-address", f"{INSIDE} ip address flush dev eth0 scope global"),
    "container's route gone": ("container-route", f"{INSIDE} ip route delete default"),
    "LAN link gone": ("container-link", "nsenter --net=$ROOT/run/netns/$LAN ip link delete eth0"),
}
OUTSIDE = {  # what no repair of ours can put right: the layer, the node, the command, and what takes it back
    "VXLAN's port blocked": ("vxlan-port", "n2", f"{BLOCK} udp dport 4789 drop", "nft delete table inet t"),
    "large frames lost": ("path-mtu", "n2", f"{BLOCK} udp dport 4789 meta length gt 1000 drop", "nft delete table inet t"),
    "no way between nodes": ("underlay", "n2", f"{BLOCK} ip saddr 10.99.0.3 drop", "nft delete table inet t"),
    "underlay's MTU": ("mtu", "n2", "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500"),
    "VNI taken": (
        "vni",
        "n2",
        "ip link delete $VXLAN; ip link add strange type vxlan id $((0x1001)) dstport 4789",
        "ip link delete strange",
    ),
    "address doubled on the LAN": (
        "address-clash",
        "outside",
        "ip address add 10.99.0.65/24 dev eth0",
        "ip address delete 10.99.0.65/24 dev eth0",
    ),
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with cluster_of(3) as cluster:
        for node, process in (("n1", "server"), ("n2", "agent"), ("n3", "agent")):
            Path(f"/var/lib/pystack-lab/{cluster.lab}/{node}/config.yml").write_text("heal: false\n")
            cluster("lab", "fault", "--name", cluster.lab, "kill", node, process)

        def back() -> None:
            done = cluster("node", "ls", "--format", "json", check=False)
            assert done.returncode == 0
            assert [row["state"] for row in json.loads(done.stdout)] == ["ready"] * 3

        eventually(back, 20)
        made = Stack(cluster, tmp_path_factory.mktemp("doctor"))
        made.up(STACK)
        yield made
        made.down()


def names(stack: Stack) -> str:
    """Shell variables for n2's objects."""
    lab, tasks = stack.pystack, stack.ps()
    root = f"/var/lib/pystack-lab/{lab.lab}/n2"
    links = {link["ifname"] for link in json.loads(lab.on("n2", "ip", "-json", "link")) if link["ifname"].startswith("ps")}
    table = json.loads(lab.on("n2", "nft", "-j", "list", "tables"))["nftables"][1]["table"]["name"]
    found = {
        "ROOT": root,
        "TABLE": table,
        "WEB": str(tasks["web-n2"]["id"])[:16],
        "LAN": str(tasks["lan-n2"]["id"])[:16],
        **{
            name: next((link for link in links if link[5] == mark), "")
            for name, mark in (("BRIDGE", "b"), ("VETH", "v"), ("VXLAN", "x"))
        },
    }
    return "".join(f"{k}={v}; " for k, v in found.items() if v)


def doctor(stack: Stack, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    done = stack.pystack("doctor", "--format", "json", *arguments, check=False)
    return done.returncode, json.loads(done.stdout)


def wrong(rows: list[dict[str, object]]) -> list[str]:
    return [f"{r['check']}: {r['target']}: {r['detail']}" for r in rows if not r["ok"]]


def test_a_healthy_cluster_has_no_findings(stack: Stack) -> None:
    code, rows = doctor(stack)
    assert wrong(rows) == []
    assert code == 0
    assert {"link", "vxlan", "fdb", "neighbour", "firewall", "dns", "port", "vip", "underlay", "sysctl", "clock"} <= {
        r["check"] for r in rows
    }


@pytest.mark.parametrize("what", REPAIRED)
def test_what_is_broken_is_named_and_put_right(stack: Stack, what: str) -> None:
    layer, command = REPAIRED[what]
    stack.pystack.on("n2", "sh", "-c", names(stack) + command)
    code, rows = doctor(stack)
    assert code == 1
    found = [r for r in rows if r["check"] == layer and not r["ok"]]
    assert found, wrong(rows)
    assert all(str(r["target"]).startswith("n2: ") and r["fix"] for r in found)
    code, rows = doctor(stack, "--repair")
    assert wrong(rows) == []
    assert code == 0
    assert any(r["check"] == layer and str(r["detail"]).startswith("put right: ") for r in rows)


@pytest.mark.parametrize("what", OUTSIDE)
def test_what_others_do_is_named(stack: Stack, what: str) -> None:
    layer, machine, command, undo = OUTSIDE[what]
    variables = names(stack)
    stack.pystack.on(machine, "sh", "-c", variables + command)
    try:
        code, rows = doctor(stack)
        assert code == 1
        assert [r for r in rows if r["check"] == layer and not r["ok"] and r["fix"]], wrong(rows)
    finally:
        stack.pystack.on(machine, "sh", "-c", variables + undo)
    code, rows = doctor(stack, "--repair")
    assert wrong(rows) == []


def test_a_node_that_is_gone_is_named(stack: Stack) -> None:
    lab = stack.pystack
    lab("lab", "fault", "--name", lab.lab, "partition", "n1,n2,outside", "n3")
    try:

        def seen() -> None:
            _, rows = doctor(stack)
            assert any(r["check"] == "node" and r["target"] == "n3" and not r["ok"] for r in rows)

        eventually(seen, 20)
    finally:
        lab("lab", "fault", "--name", lab.lab, "heal")

    def well() -> None:
        assert doctor(stack)[0] == 0

    eventually(well, 20)
