"""What goes to the kernel: messages, checksums, sysctls. No root."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplugins.errors import NetworkError
from netplugins.linux import netlink, rtnetlink, sysctl, uapi
from netplugins.linux.checksum import checksum

IFINFO = 16


def test_a_link_info_is_nested() -> None:
    kind, flags, payload, what = rtnetlink.add_vxlan("psx1", vni=7, port=4789, local="10.9.0.1", mtu=1450, master=3)
    assert (kind, what) == (uapi.RTM_NEWLINK, "create vxlan psx1 (VNI 7)")
    assert flags == uapi.NLM_F_CREATE | uapi.NLM_F_EXCL
    found = netlink.attributes(payload[IFINFO:])
    assert found[uapi.IFLA_IFNAME] == b"psx1\0"
    assert found[uapi.IFLA_MTU] == struct.pack("=I", 1450)
    assert found[uapi.IFLA_MASTER] == struct.pack("=I", 3)
    info = netlink.attributes(found[uapi.IFLA_LINKINFO])
    assert info[uapi.IFLA_INFO_KIND] == b"vxlan\0"
    data = netlink.attributes(info[uapi.IFLA_INFO_DATA])
    assert data[uapi.IFLA_VXLAN_ID] == struct.pack("=I", 7)
    assert data[uapi.IFLA_VXLAN_PORT] == struct.pack("!H", 4789)
    assert data[uapi.IFLA_VXLAN_LEARNING] == b"\0"
    assert data[uapi.IFLA_VXLAN_LOCAL] == socket.inet_aton("10.9.0.1")
    assert uapi.IFLA_VXLAN_LOCAL6 not in data


def test_a_link_without_data_has_only_its_kind() -> None:
    found = netlink.attributes(rtnetlink.add_link("pswg", "wireguard")[2][IFINFO:])
    assert netlink.attributes(found[uapi.IFLA_LINKINFO]) == {uapi.IFLA_INFO_KIND: b"wireguard\0"}


def test_the_peer_of_a_veth_is_born_in_its_namespace() -> None:
    pair = rtnetlink.add_veth("psv1", master=3, peer="eth0", peer_netns=11, peer_mac="02:42:0a:01:00:02", mtu=1450)
    info = netlink.attributes(netlink.attributes(pair[2][IFINFO:])[uapi.IFLA_LINKINFO])
    peer = netlink.attributes(netlink.attributes(info[uapi.IFLA_INFO_DATA])[uapi.VETH_INFO_PEER][IFINFO:])
    assert peer[uapi.IFLA_IFNAME] == b"eth0\0"
    assert peer[uapi.IFLA_NET_NS_FD] == struct.pack("=I", 11)
    assert peer[uapi.IFLA_ADDRESS] == bytes.fromhex("02420a010002")


@pytest.mark.parametrize(("mac", "mtu"), [("", 0), ("02:00:00:00:00:01", 1400)])
def test_a_parented_link_has_its_parents_mac_and_mtu_but_where_given(mac: str, mtu: int) -> None:
    message = rtnetlink.add_parented_link(
        "psm1", rtnetlink.ipvlan_info("l3", "private"), parent=2, netns=11, mac=mac, mtu=mtu, what="ipvlan link"
    )
    found = netlink.attributes(message[2][IFINFO:])
    assert (uapi.IFLA_ADDRESS in found, uapi.IFLA_MTU in found) == (bool(mac), bool(mtu))
    data = netlink.attributes(netlink.attributes(found[uapi.IFLA_LINKINFO])[uapi.IFLA_INFO_DATA])
    assert data == {uapi.IFLA_IPVLAN_MODE: b"\1\0", uapi.IFLA_IPVLAN_FLAGS: b"\1\0"}


ROUTES = {
    "default": (rtnetlink.add_default_route(4, "10.1.0.1", "eth0"), 0, {uapi.RTA_GATEWAY: b"\x0a\1\0\1"}, 0),
    "link": (rtnetlink.add_link_route(4, 4, "eth0"), 0, {}, uapi.RT_SCOPE_LINK),
    "network": (
        rtnetlink.add_route(4, "10.3.0.0/16", "10.1.0.1", "eth0"),
        16,
        {uapi.RTA_GATEWAY: b"\x0a\1\0\1", uapi.RTA_DST: b"\x0a\3\0\0"},
        0,
    ),
    "connected": (
        rtnetlink.add_connected_route(4, "10.1.0.7/24", "psb1"),
        24,
        {uapi.RTA_DST: b"\x0a\1\0\0", uapi.RTA_PREFSRC: b"\x0a\1\0\7"},
        uapi.RT_SCOPE_LINK,
    ),
}


@pytest.mark.parametrize(("message", "length", "attributes", "scope"), ROUTES.values(), ids=ROUTES)
def test_routes(message: netlink.Message, length: int, attributes: dict[int, bytes], scope: int) -> None:
    kind, flags, payload, _ = message
    assert (kind, flags) == (uapi.RTM_NEWROUTE, uapi.NLM_F_CREATE | uapi.NLM_F_REPLACE)
    assert (payload[0], payload[1], payload[4], payload[6]) == (socket.AF_INET, length, uapi.RT_TABLE_MAIN, scope)
    assert netlink.attributes(payload[12:]) == {uapi.RTA_OIF: struct.pack("=I", 4), **attributes}


def test_an_fdb_entry_is_one_of_the_device_and_one_of_the_bridge() -> None:
    for add, kind in ((True, uapi.RTM_NEWNEIGH), (False, uapi.RTM_DELNEIGH)):
        device, bridge = rtnetlink.fdb_entry(5, "02:42:0a:01:00:02", "fd09::2", add=add)
        assert device[0] == bridge[0] == kind
        assert netlink.attributes(device[2][12:])[uapi.NDA_DST] == socket.inet_pton(socket.AF_INET6, "fd09::2")
        assert uapi.NDA_DST not in netlink.attributes(bridge[2][12:])
        assert (device[2][10], bridge[2][10]) == (uapi.NTF_SELF, uapi.NTF_MASTER)


def test_links_are_deleted_in_one_message() -> None:
    assert [m[0] for m in rtnetlink.delete_links(["a"])] == [uapi.RTM_DELLINK]
    assert [m[0] for m in rtnetlink.delete_links(["a", "b"])] == [uapi.RTM_SETLINK, uapi.RTM_SETLINK, uapi.RTM_DELLINK]


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=8), st.booleans())
def test_attributes_are_read_as_they_were_written(found: dict[int, bytes], nested: bool) -> None:
    flag = uapi.NLA_F_NESTED if nested else 0
    assert netlink.attributes(b"".join(netlink.attribute(k | flag, v) for k, v in found.items())) == found


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_attributes(data: bytes) -> None:
    netlink.attributes(data)


def test_an_error_of_the_kernel_has_its_number() -> None:
    with netlink.Socket() as sock, pytest.raises(NetworkError, match=r"^set the MTU of psx9: .*\((ENODEV|EPERM)\)$") as caught:
        sock.run([rtnetlink.set_mtu(0x7FFF_FFFF, 1400, "psx9")])
    assert caught.value.errno in (errno.ENODEV, errno.EPERM)


@given(st.binary(max_size=61).map(lambda data: data + b"\0" * (len(data) % 2)))
def test_data_with_its_checksum_sums_up_to_zero(data: bytes) -> None:
    assert checksum(data + struct.pack("!H", checksum(data))) == 0


def test_the_checksum_of_the_rfc() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF  # RFC 1071 §3


def test_forwarding_is_turned_on_only_where_it_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    values = {"net/ipv4/ip_forward": "1\n", "net/ipv4/conf/psb1/forwarding": "0\n"}
    for name, value in values.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value)
    assert sysctl.forwarding_off(["psb1", "psb2"]) == ["net/ipv4/conf/psb1/forwarding"]
    (note,) = sysctl.allow_forwarding(["psb1", "psb2"])
    assert note.startswith("net.ipv4.conf.psb1.forwarding was 0 and is now 1")
    assert sysctl.forwarding_off(["psb1"]) == []
    assert sysctl.allow_forwarding(["psb1"]) == []
    sysctl.write("net/ipv6/conf/psb1/accept_ra", "0")  # a kernel without IPv6
