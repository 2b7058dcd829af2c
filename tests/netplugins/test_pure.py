"""Drivers, the firewall's text, and DNS messages: all without root."""

from __future__ import annotations

import contextlib
import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from netplugins import firewall
from netplugins.bridge import BridgeDriver
from netplugins.driver import Endpoint, HostCapabilities, Network, PortMapping, Subnet, Veth
from netplugins.resolver import message
from netplugins.resolver.server import AnswerCache
from netplugins.resolver.table import Names, View

NETWORK = Network(name="n", link="psb1", subnets=(Subnet("10.1.0.0/24", "10.1.0.1"),))


def query(name: str, kind: int = message.A) -> bytes:
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + message.encode_name(name) + struct.pack("!HH", kind, 1)


def test_a_bridge_network_is_described_whole() -> None:
    endpoint = Endpoint(id="abcdef0123456789", network="n", netns="/x", ipv4="10.1.0.2")
    described = BridgeDriver().desired_state(NETWORK, [endpoint], HostCapabilities())
    veth = next(o for o in described.objects if isinstance(o, Veth))
    assert veth.mac == "02:42:0a:01:00:02"
    assert veth.addresses == ("10.1.0.2/24",)
    assert veth.gateways == ("10.1.0.1",)
    assert len(veth.name) <= 15


def test_published_ports_are_map_elements() -> None:
    isolation = BridgeDriver().desired_state(NETWORK, [], HostCapabilities()).firewall
    assert isolation
    port = PortMapping(endpoint="e", host_ip="", port=8080, protocol="tcp", ipv4="10.1.0.2", ipv6="", target=80)
    script = firewall.render("t", [isolation], [port]).whole(3)
    assert "8080 : 10.1.0.2 . 80" in script
    assert "pystack revision 3" in script


def test_names_answer_by_family() -> None:
    names = Names({"net": {"web": ("10.1.0.2", "fd00::2")}})
    for kind, count in ((message.A, 1), (message.AAAA, 1), (message.MX, 0)):
        packet = query("WEB", kind)
        reply = names.answer(packet, message.parse(packet), ["net"], ttl=0, tcp=False)
        assert reply is not None
        assert struct.unpack_from("!H", reply, 6)[0] == count
        assert reply[3] & 15 == message.NOERROR
    packet = query("other")
    assert names.answer(packet, message.parse(packet), ["net"], ttl=0, tcp=False) is None
    assert names.addresses("web.net", ["net"]) is not None
    assert names.addresses("web", ["elsewhere"]) is None


@given(st.binary(max_size=200))
def test_any_packet_is_parsed_or_refused(packet: bytes) -> None:
    with contextlib.suppress(message.MalformedError):
        message.parse(packet)


def test_what_was_answered_is_said_again_until_something_changes() -> None:
    view = View(netns="/n", networks=("net",))
    many = tuple(f"172.18.0.{n}" for n in range(2, 8))
    said = AnswerCache()
    for names in (Names({"net": {"web": many, "db": ("172.18.0.9",)}}), Names({"net": {"web": ("172.18.0.77",)}})):
        said.bind(names, view)
        assert said.get(query("web")) is None  # what others said before is forgotten
        orders = set()
        for ident in range(200):
            packet = struct.pack("!H", ident) + query("web")[2:]
            answer = said.get(packet)
            if answer is None:
                answer = names.answer(packet, message.parse(packet), view.networks, ttl=0, tcp=False)
                assert answer
                said.put(packet, answer)
            assert struct.unpack_from("!H", answer)[0] == ident
            found = [answer[n - 4 : n] for n in range(len(answer), len(packet), -16)]
            orders.add(tuple(found))
            assert {socket.inet_ntoa(a) for a in found} == set(names.addresses("web", ("net",)) or ())
        assert len(orders) > 3 or len(found) == 1
    for number in range(3000):  # every question another
        said.put(query(f"x{number}"), b"\0" * 12)
    assert len(said) <= 1024
