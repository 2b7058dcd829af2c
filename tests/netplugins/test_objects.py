"""Kinds of kernel objects: what can change in place, and how each differs from its description. No root."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping

import msgspec
import pytest

from netplugins.driver import Bridge, FdbEntry, KernelObject, ParentedLink, Rates, Shaper, Veth, Vlan, Vxlan, WireguardDevice
from netplugins.linux.netlink import Link
from netplugins.objects import fdb
from netplugins.objects.kind import Difference, View
from netplugins.objects.kinds import KINDS, can_update, kind_of
from netplugins.objects.parented_link import probes_of
from netplugins.objects.vxlan import conflicting_devices

replace = msgspec.structs.replace
BRIDGE = Bridge("psb1", "02:42:0a:01:00:01", 1450, ("10.1.0.1/24", "fd00::1/64"))
TUNNEL = WireguardDevice(name="pswg", private_key="/k", address="fd70::1", port=1, mtu=1400)
VXLAN = Vxlan(name="psx1", master="psb1", vni=7, port=4789, local="10.9.0.1", mtu=1450)
VLAN = Vlan(name="psl20", parent="eth0", vid=20)
VETH = Veth(
    name="psv1",
    master="psb1",
    netns="/run/n",
    peer="eth0",
    order=0,
    mac="02:42:0a:01:00:02",
    mtu=1450,
    addresses=("10.1.0.2/24",),
    gateways=("10.1.0.1",),
)
PARENTED = ParentedLink(
    name="psm1",
    kind="macvlan",
    mode="bridge",
    parent="eth0",
    netns="/run/n",
    interface="eth1",
    order=1,
    mac="",
    mtu=0,
    addresses=("10.2.0.2/24", "fd02::2/64"),
    gateways=(),
)
SHAPER = Shaper(name="psi1", link="psv1", netns="/run/n", order=0, mtu=1450, rates=Rates(ingress=20_000_000, egress=10_000_000))
OBJECTS: tuple[KernelObject, ...] = (BRIDGE, TUNNEL, VXLAN, VLAN, VETH, PARENTED, SHAPER)


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def link(index: int, name: str, *, up: bool = True, mtu: int = 1450, master: int = 0, **vxlan: object) -> Link:
    return msgspec.convert({"index": index, "name": name, "up": up, "mtu": mtu, "master": master, "kind": "", **vxlan}, Link)


def view(
    *links: Link,
    addresses: str = "",
    routes: tuple[tuple[int, bytes, int], ...] = (),
    rates: Mapping[int, int] = {},
    redirected: Collection[int] = (),
) -> View:
    """*addresses*: "INDEX ADDRESS", separated by commas."""
    pairs = [a.split() for a in addresses.split(",") if a]
    return View({one.name: one for one in links}, {(int(i), packed(a)) for i, a in pairs}, set(routes), rates, redirected)


WHOLE = view(
    link(1, "psb1"),
    link(2, "psx1", master=1, kind="vxlan", vni=7, port=4789, local=packed("10.9.0.1")),
    link(3, "psv1", master=1),
    link(4, "psl20", mtu=9000),
    link(5, "psi1"),
    addresses="1 10.1.0.1,1 fd00::1",
    routes=((1, packed("10.1.0.0"), 24), (1, packed("fd00::"), 64)),
    rates={3: 20_000_000, 5: 10_000_000},
    redirected={3},
)


def changed(*links: Link, without: str = "", addresses: str = "1 10.1.0.1,1 fd00::1") -> View:
    """WHOLE with other *links*, *without* one, with these *addresses*."""
    kept = {n: one for n, one in WHOLE.links.items() if n != without} | {one.name: one for one in links}
    return view(*kept.values(), addresses=addresses, routes=tuple(WHOLE.routes), rates=WHOLE.rates, redirected=WHOLE.redirected)


def test_every_kernel_object_has_a_kind() -> None:
    assert set(KINDS) == set(KernelObject.__args__)
    assert {type(o) for o in OBJECTS} == set(KINDS)


@pytest.mark.parametrize("item", [BRIDGE, VXLAN, VLAN, VETH, PARENTED, SHAPER], ids=lambda o: type(o).__name__)
def test_an_object_as_described_has_no_difference(item: KernelObject) -> None:
    assert list(kind_of(item).observe(item, WHOLE)) == []


CASES: dict[str, tuple[KernelObject, View, list[Difference]]] = {
    "no bridge": (BRIDGE, view(), [Difference("link", "the link does not exist")]),
    "no VXLAN device": (VXLAN, view(link(1, "psb1")), [Difference("vxlan", "the link does not exist")]),
    "a bridge that is down": (BRIDGE, changed(link(1, "psb1", up=False)), [Difference("link", "the link is down")]),
    "another MTU": (
        BRIDGE,
        changed(link(1, "psb1", mtu=1500)),
        [Difference("mtu", "the MTU is 1500 and should be 1450")],
    ),
    "no address": (
        BRIDGE,
        changed(addresses="1 fd00::1"),
        [Difference("address", "the address 10.1.0.1/24 is missing")],
    ),
    "the address of another link": (
        BRIDGE,
        changed(addresses="2 10.1.0.1,1 fd00::1"),
        [Difference("address", "the address 10.1.0.1/24 is missing")],
    ),
    "no route": (
        BRIDGE,
        View(WHOLE.links, WHOLE.addresses, {(1, packed("10.1.0.0"), 24), (1, packed("fd00::"), 48)}),
        [Difference("route", "the route to fd00::/64 is missing")],
    ),
    "a veth at no bridge": (VETH, changed(link(3, "psv1")), [Difference("bridge-port", "the link is not a port of psb1")]),
    "a veth whose bridge is gone": (
        VETH,
        changed(link(3, "psv1", master=1), without="psb1"),
        [Difference("bridge-port", "the link is not a port of psb1")],
    ),
    "a VXLAN device with another source": (
        VXLAN,
        changed(link(2, "psx1", master=1, kind="vxlan", vni=7, port=4789, local=b"")),
        [
            Difference(
                "vxlan",
                "it has VNI 7, port 4789 and source address no address, and should have VNI 7, port 4789 and 10.9.0.1",
            )
        ],
    ),
    "limits that somebody took away": (
        SHAPER,
        view(*WHOLE.links.values()),
        [
            Difference("bandwidth", "what is received is unlimited and should be 20000000 bit/s"),
            Difference("bandwidth", "what is sent is unlimited and should be 10000000 bit/s"),
            Difference("bandwidth", "what is sent does not pass psi1"),
        ],
    ),
    "another limit": (
        SHAPER,
        view(*WHOLE.links.values(), rates={3: 99_000_000, 5: 10_000_000}, redirected={3}),
        [Difference("bandwidth", "what is received is 99000000 bit/s and should be 20000000 bit/s")],
    ),
    "a limit whose link is gone": (
        SHAPER,
        changed(without="psi1"),
        [
            Difference("bandwidth", "the link does not exist"),
            Difference("bandwidth", "what is sent is unlimited and should be 10000000 bit/s"),
        ],
    ),
    "a VLAN that is down": (VLAN, changed(link(4, "psl20", up=False)), [Difference("link", "the link is down")]),
}


@pytest.mark.parametrize(("item", "host", "expected"), CASES.values(), ids=CASES)
def test_what_differs_on_the_host(item: KernelObject, host: View, expected: list[Difference]) -> None:
    assert list(kind_of(item).observe(item, host)) == expected


DEFAULT = (9, bytes(4), 0)
INSIDE: dict[str, tuple[KernelObject, View, list[str]]] = {
    "as described": (VETH, view(link(9, "eth0"), addresses="9 10.1.0.2", routes=(DEFAULT,)), []),
    "no interface": (VETH, view(link(9, "eth1")), ["container-link"]),
    "down, and with another MTU": (
        VETH,
        view(link(9, "eth0", up=False, mtu=1500), addresses="9 10.1.0.2", routes=(DEFAULT,)),
        ["container-link", "mtu"],
    ),
    "no address": (VETH, view(link(9, "eth0"), addresses="8 10.1.0.2", routes=(DEFAULT,)), ["container-address"]),
    "a default route of the other family": (
        VETH,
        view(link(9, "eth0"), addresses="9 10.1.0.2", routes=((9, bytes(16), 0),)),
        ["container-route"],
    ),
    "no default route": (VETH, view(link(9, "eth0"), addresses="9 10.1.0.2"), ["container-route"]),
    "a link on a parent whose limits are gone": (
        replace(PARENTED, rates=Rates(ingress=8_000_000, egress=9_000_000)),
        view(link(9, "eth1"), addresses="9 10.2.0.2,9 fd02::2", rates={9: 9_000_000}),
        ["bandwidth", "bandwidth"],
    ),
    "a link with its parent's MTU and no gateway": (
        PARENTED,
        view(link(9, "eth1", mtu=9000), addresses="9 10.2.0.2,9 fd02::2"),
        [],
    ),
}


@pytest.mark.parametrize(("item", "inside", "checks"), INSIDE.values(), ids=INSIDE)
def test_what_differs_in_a_container(item: KernelObject, inside: View, checks: list[str]) -> None:
    end = kind_of(item).container_link(item)
    assert end is not None
    assert end.netns == "/run/n"
    assert [d.check for d in end.observe(inside)] == checks


def test_only_objects_of_containers_are_seen_there() -> None:
    assert [type(o) for o in OBJECTS if kind_of(o).container_link(o)] == [Veth, ParentedLink]
    assert [type(o) for o in OBJECTS if kind_of(o).namespace(o)] == [Veth, ParentedLink, Shaper]


UPDATES: dict[str, tuple[KernelObject, KernelObject, bool]] = {
    "any change of a bridge": (BRIDGE, replace(BRIDGE, mac="02:00:00:00:00:01", mtu=9000, addresses=()), True),
    "any change of a tunnel": (TUNNEL, replace(TUNNEL, port=2, address="fd70::2"), True),
    "the MTU of a veth": (VETH, replace(VETH, mtu=9000), True),
    "the address of a veth": (VETH, replace(VETH, mtu=9000, addresses=("10.1.0.9/24",)), False),
    "the MTU of a VXLAN device": (VXLAN, replace(VXLAN, mtu=9000), True),
    "the VNI of a VXLAN device": (VXLAN, replace(VXLAN, vni=8), False),
    "a VLAN's ID": (VLAN, replace(VLAN, vid=21), False),
    "the limits of a veth": (SHAPER, replace(SHAPER, rates=Rates(egress=1)), True),
    "the limits of a macvlan link": (PARENTED, replace(PARENTED, rates=Rates(egress=1)), True),
    "a macvlan link's mode": (PARENTED, replace(PARENTED, mode="vepa"), False),
    "a bridge that becomes a veth": (BRIDGE, replace(VETH, name=BRIDGE.name), False),
}


@pytest.mark.parametrize(("was", "now", "expected"), UPDATES.values(), ids=UPDATES)
def test_what_changes_in_place(was: KernelObject, now: KernelObject, expected: bool) -> None:
    assert can_update(was, now) is expected


def test_each_kind_is_created_after_those_that_it_needs() -> None:
    order = sorted(OBJECTS, key=lambda o: (kind_of(o).stage, kind_of(o).order(o)))
    assert order == [BRIDGE, TUNNEL, VXLAN, VLAN, VETH, PARENTED, SHAPER]


def test_a_device_of_others_with_our_vni_is_found() -> None:
    other = link(8, "vxlan9", kind="vxlan", vni=7, port=4789)
    elsewhere = link(9, "vxlan8", kind="vxlan", vni=7, port=8472)
    assert list(conflicting_devices([VXLAN], changed(other, elsewhere))) == [(VXLAN, other)]
    assert list(conflicting_devices([VXLAN], WHOLE)) == []


def test_the_lan_is_probed_for_each_address_but_not_where_the_driver_says_so() -> None:
    found = probes_of([PARENTED, replace(PARENTED, interface="eth2", probed=False)])
    assert [(p.interface, p.address) for p in found] == [("eth1", "10.2.0.2"), ("eth1", "fd02::2")]
    assert set(found.values()) == {PARENTED}


ENTRY = FdbEntry(bridge="psb1", vxlan="psx1", mac="02:42:0a:01:00:09", underlay="10.9.0.2", addresses=("10.1.0.9",))


def entries(*, underlay: str = "10.9.0.2", bridged: int = 2, mac: str = ENTRY.mac) -> fdb.KernelEntries:
    return fdb.KernelEntries({(2, ENTRY.mac): {packed(underlay)}}, {(bridged, ENTRY.mac)}, {(1, packed("10.1.0.9")): mac})


EMPTY = fdb.KernelEntries({}, set(), {})
ENTRIES: dict[str, tuple[fdb.KernelEntries, list[tuple[str, str]]]] = {
    "as described": (entries(), []),
    "another node": (
        entries(underlay="10.9.0.3"),
        [("fdb", f"frames to {ENTRY.mac} go to 10.9.0.3 and not to 10.9.0.2")],
    ),
    "not at the bridge": (
        entries(bridged=1),
        [("fdb", f"frames to {ENTRY.mac} go to 10.9.0.2 and not to 10.9.0.2")],
    ),
    "another neighbour": (
        entries(mac="02:00:00:00:00:01"),
        [("neighbour", f"the neighbour entry has 02:00:00:00:00:01 and should have {ENTRY.mac}")],
    ),
    "nothing": (
        EMPTY,
        [
            ("fdb", f"frames to {ENTRY.mac} go to nowhere and not to 10.9.0.2"),
            ("neighbour", f"the neighbour entry has no address and should have {ENTRY.mac}"),
        ],
    ),
}


@pytest.mark.parametrize(("kernel", "expected"), ENTRIES.values(), ids=ENTRIES)
def test_what_differs_of_a_remote_endpoint(kernel: fdb.KernelEntries, expected: list[tuple[str, str]]) -> None:
    found = list(fdb.observe([ENTRY], kernel, WHOLE))
    assert [(d.check, d.detail) for _, d in found] == expected
    assert kernel.has(ENTRY, 2, 1) == (expected == [])
    assert list(fdb.observe([ENTRY], kernel, changed(without="psx1"))) == []  # the link is a difference of its own
