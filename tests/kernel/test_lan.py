"""macvlan over three nodes: containers stand on the LAN, and the machine `outside`, which is not a node, reaches them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from netplugins.kernel import features
from tests.conftest import Pystack, Stack, cluster_of, eventually

STACK = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    networks: [lan]
    deploy: {mode: global}
networks:
  lan:
    driver: macvlan
    driver_opts: {parent: %(parent)s, macvlan_mode: %(mode)s}
    ipam: {config: [{subnet: %(subnet)s, ip_range: %(range)s}]}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Pystack]:
    with cluster_of(3) as pystack:
        yield pystack


@pytest.fixture(scope="module")
def lab(cluster: Pystack) -> Pystack:
    """Where `stack` makes its stacks."""
    return cluster


def addresses(stack: Stack) -> dict[str, str]:
    return {name: next(iter(task["addresses"].values())) for name, task in stack.ps().items()}  # type: ignore[attr-defined]


def ask(stack: Stack, index: int, address: str) -> str:
    command = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {address} 80 | tail -1"
    return stack.run("exec", "-T", "--index", str(index), "web", "sh", "-c", command, check=False).stdout.strip()


def links(cluster: Pystack, machine: str) -> set[str]:
    return {link["ifname"] for link in json.loads(cluster.on(machine, "ip", "-json", "link"))}


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa"])
def test_the_lan_and_containers_on_all_nodes_reach_each_other(stack: Stack, cluster: Pystack, mode: str) -> None:
    stack.up(STACK % {"parent": "eth0", "mode": mode, "subnet": "10.99.0.0/24", "range": "10.99.0.64/26"})
    found = addresses(stack)
    assert set(found.values()) == {"10.99.0.64", "10.99.0.65", "10.99.0.66"}
    ids = {name: str(task["id"])[:12] for name, task in stack.ps().items()}
    for name, address in found.items():
        assert cluster.on("outside", "curl", "-s", "-m", "5", f"http://{address}").strip() == ids[name]
    assert ask(stack, 1, found["web-n2"]) == ids["web-n2"]
    assert ask(stack, 2, "web")  # by name, across hosts
    assert ask(stack, 3, "10.99.0.254") == ""  # nobody listens there, but it answers at once
    stack.down()
    assert all(not link.startswith("ps") for n in ("n1", "n2", "n3") for link in links(cluster, n))


def test_a_vlan_is_made_where_it_is_not_there(stack: Stack, cluster: Pystack) -> None:
    if "vlan" not in features():
        text = STACK % {"parent": "eth0.20", "mode": "bridge", "subnet": "10.120.0.0/24", "range": "10.120.0.128/25"}
        refused = stack.up(text, check=False)
        assert refused.returncode == 1
        assert "a kernel without VLANs (CONFIG_VLAN_8021Q)" in refused.stderr
        pytest.skip("the kernel has no VLANs (CONFIG_VLAN_8021Q): that it is refused was tested")
    cluster.on(
        "outside",
        "sh",
        "-c",
        "ip link add link eth0 name eth0.20 type vlan id 20; ip link set eth0.20 up; ip address add 10.120.0.1/24 dev eth0.20",
    )
    stack.up(STACK % {"parent": "eth0.20", "mode": "bridge", "subnet": "10.120.0.0/24", "range": "10.120.0.128/25"})
    for address in addresses(stack).values():
        assert cluster.on("outside", "curl", "-s", "-m", "5", f"http://{address}").strip()
    vlan = next(link for link in links(cluster, "n2") if link.startswith("ps") and link[5:8] == "l20")
    cluster.on("n2", "ip", "link", "delete", vlan)  # by somebody's hand, and its containers' links with it
    address = addresses(stack)["web-n2"]

    def healed() -> None:
        assert cluster.on("outside", "curl", "-s", "-m", "1", f"http://{address}", check=False).strip()

    eventually(healed, 4)
    stack.down()
    assert all(not link.startswith("ps") for n in ("n1", "n2", "n3") for link in links(cluster, n))


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_ipvlan_containers_share_their_parents_hardware_address(stack: Stack, cluster: Pystack, mode: str) -> None:
    text = STACK.replace("macvlan", "ipvlan") % {
        "parent": "eth0",
        "mode": mode,
        "subnet": "10.99.0.0/24",
        "range": "10.99.0.64/26",
    }
    if "ipvlan" not in features():
        refused = stack.up(text, check=False)
        assert refused.returncode == 1
        assert "the kernel has no ipvlan (CONFIG_IPVLAN)" in refused.stderr
        pytest.skip("the kernel has no ipvlan (CONFIG_IPVLAN): that it is refused was tested")
    stack.up(text)
    found = addresses(stack)
    for name, address in found.items():
        if mode == "l3":  # it answers no ARP: who sends to it must know the way
            cluster.on("outside", "ip", "route", "replace", f"{address}/32", "via", f"10.99.0.{name[-1]}")
        assert cluster.on("outside", "curl", "-s", "-m", "5", f"http://{address}").strip()
    macs = {
        line.split()[1]
        for line in stack.run("exec", "-T", "--index", "1", "web", "ip", "link", "show", "eth0").stdout.splitlines()
        if "link/ether" in line
    }
    node = str(stack.ps()["web-n1"]["node"])
    assert macs == {json.loads(cluster.on(node, "ip", "-json", "link", "show", "eth0"))[0]["address"]}
    if mode == "l2":
        assert ask(stack, 1, found["web-n2"])
    for address in found.values():
        cluster.on("outside", "ip", "route", "delete", f"{address}/32", check=False)


def test_passthru_takes_a_parent_for_one_container(stack: Stack, cluster: Pystack) -> None:
    for machine in ("n1", "n2", "n3"):
        cluster.on(
            machine, "sh", "-c", "ip link add spare type vxlan id 30 remote 10.99.0.254 dstport 4999; ip link set spare up"
        )
    floods = "; ".join(f"bridge fdb append 00:00:00:00:00:00 dev spare dst 10.99.0.{n}" for n in (1, 2, 3))
    cluster.on(
        "outside",
        "sh",
        "-c",
        f"ip link add spare type vxlan id 30 dstport 4999; ip link set spare up; {floods}; "
        "ip address add 10.130.0.1/24 dev spare",
    )
    text = STACK % {"parent": "spare", "mode": "passthru", "subnet": "10.130.0.0/24", "range": "10.130.0.128/25"}
    stack.up(text)
    for address in addresses(stack).values():
        assert cluster.on("outside", "curl", "-s", "-m", "5", f"http://{address}").strip()
    other = Stack(cluster, stack.directory)
    try:
        refused = other.up(text.replace("10.130.", "10.131."), check=False)
        assert refused.returncode != 0
        assert "create macvlan link (passthru) on spare" in refused.stderr
    finally:
        other.down()
    assert cluster.on("outside", "curl", "-s", "-m", "5", f"http://{addresses(stack)['web-n1']}").strip()


def test_an_address_that_somebody_on_the_lan_has_is_not_taken(stack: Stack, cluster: Pystack) -> None:
    cluster.on("outside", "ip", "address", "add", "10.99.0.72/24", "dev", "eth0")
    mac = json.loads(cluster.on("outside", "ip", "-json", "link", "show", "eth0"))[0]["address"]
    text = STACK % {"parent": "eth0", "mode": "bridge", "subnet": "10.99.0.0/24", "range": "10.99.0.72/29"}
    refused = stack.up(text, check=False)
    assert refused.returncode != 0
    assert f"address 10.99.0.72 is held by {mac} on the LAN of eth0" in refused.stderr
    cluster.on("outside", "ip", "address", "delete", "10.99.0.72/24", "dev", "eth0")
    stack.up(text)
    assert len(addresses(stack)) == 3


def test_addresses_of_nodes_and_reserved_ones_are_never_given(stack: Stack) -> None:
    text = STACK % {"parent": "eth0", "mode": "bridge", "subnet": "10.99.0.0/24", "range": "10.99.0.0/29"}
    stack.up(text.replace("ip_range", "aux_addresses: {printer: 10.99.0.4}, ip_range"))
    assert set(addresses(stack).values()) == {"10.99.0.5", "10.99.0.6", "10.99.0.7"}  # .1 to .3 are the nodes'


def test_a_parent_that_is_missing_is_said_before_anything_starts(stack: Stack) -> None:
    text = STACK % {"parent": "eth9", "mode": "bridge", "subnet": "10.150.0.0/24", "range": "10.150.0.0/24"}
    refused = stack.up(text, check=False)
    assert refused.returncode == 1
    assert "network " in refused.stderr
    assert "is on eth9; it has eth0" in refused.stderr
    assert stack.ps() == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("driver: macvlan", "driver: mcvlan"), "networks.lan.driver: 'mcvlan' is on no node; there is bridge"),
        (("macvlan_mode: bridge", "macvlan_mode: brigde"), "macvlan has no macvlan_mode 'brigde'"),
        (("macvlan_mode:", "mode_of_macvlan:"), "mode_of_macvlan"),
        (
            (
                "10.150.0.0/30}]}",
                "10.150.0.0/30}]}\n  two: {driver: macvlan, driver_opts: {parent: eth0}, ipam: {config: "
                "[{subnet: 10.150.0.0/24}]}}\nx-a: {}",
            ),
            "subnet 10.150.0.0/24 overlaps 10.150.0.0/24 of another network",
        ),
        (("mode: global", "replicas: 9"), "subnet 10.150.0.0/30 of network"),
    ],
)
def test_a_lan_that_cannot_be_is_said_before_anything_starts(stack: Stack, change: tuple[str, str], said: str) -> None:
    text = STACK % {"parent": "eth0", "mode": "bridge", "subnet": "10.150.0.0/24", "range": "10.150.0.0/30"}
    text = text.replace("networks: [lan]", "networks: [lan, two]") if "two:" in change[1] else text
    refused = stack.up(text.replace(*change), check=False)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert stack.pystack.json("volume", "ls", "--format", "json") == []
    assert stack.name not in stack.pystack("ls").stdout


def test_containers_keep_their_addresses_over_a_restart_of_the_agent(stack: Stack, cluster: Pystack) -> None:
    stack.up(STACK % {"parent": "eth0", "mode": "bridge", "subnet": "10.99.0.0/24", "range": "10.99.0.64/26"})
    before = {name: task["id"] for name, task in stack.ps().items()}
    cluster("lab", "fault", "--name", cluster.lab, "kill", "n2", "agent")

    def back() -> None:
        rows = {r["name"]: r for r in cluster.json("node", "ls", "--format", "json")}
        assert rows["n2"]["state"] == "ready"

    eventually(back, 15)
    stack.up(stack.file.read_text())
    assert {name: task["id"] for name, task in stack.ps().items()} == before
    for address in addresses(stack).values():
        assert cluster.on("outside", "curl", "-s", "-m", "5", f"http://{address}").strip()
