"""A ruleset as text, and what changes one into the next. No root: `test_elements.py` has the kernel take both."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplugins import firewall, nft_elements
from netplugins.driver import FirewallPolicy, LoadBalancer, Nodes, PortMapping
from netplugins.firewall import ElementChange, Ruleset
from netplugins.linux import uapi
from netplugins.nft_elements import ElementType

SHAPE = ElementType(("ipv4_addr",))
PARTS = st.lists(st.frozensets(st.sampled_from(["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"])), max_size=4).map(tuple)


def ruleset(*parts: frozenset[str], skeleton: str = "set s {@@s@@ }") -> Ruleset:
    return Ruleset("t", skeleton, {"s": parts}, {"s": SHAPE})


def test_the_text_has_the_elements_in_their_place_and_the_revision() -> None:
    text = ruleset(frozenset({"2.2.2.2"}), frozenset({"1.1.1.1"}), skeleton="rev @@REVISION@@ set s {@@s@@ }").whole(7)
    assert text == "rev 7 set s { elements = { 1.1.1.1, 2.2.2.2 }; }"
    assert ruleset().whole(1) == "set s { }"


@given(PARTS, PARTS)
def test_a_change_leads_from_one_to_the_other(before: tuple[frozenset[str], ...], after: tuple[frozenset[str], ...]) -> None:
    old, new = frozenset().union(*before), frozenset().union(*after)
    for change in ruleset(*after).changes(ruleset(*before)) or []:
        assert change.name == "s"
        old = (old - change.out) | change.into
    assert old == new


def test_the_same_parts_are_no_change_and_another_skeleton_is_the_whole_table() -> None:
    part = frozenset({"1.1.1.1"})
    assert ruleset(part).changes(ruleset(part)) == []
    assert ruleset(part).changes(ruleset(frozenset({"1.1.1.1"}))) == []
    assert ruleset(part, skeleton="other").changes(ruleset(part)) is None
    more = ruleset(part, frozenset({"2.2.2.2"})).changes(ruleset(part))
    assert more == [ElementChange("s", frozenset(), frozenset({"2.2.2.2"}))]


NETWORK = FirewallPolicy(link="psb1", subnets=("10.1.0.0/24",), internal=False)


@pytest.mark.parametrize("networks", [(), (NETWORK,)])
def test_a_table_is_made_anew_from_its_first_line(networks: tuple[FirewallPolicy, ...]) -> None:
    port = PortMapping(endpoint="e", host_ip="", port=8080, protocol="tcp", ipv4="10.1.0.2", ipv6="", target=80)
    found = firewall.render("t", networks, [port], nodes=Nodes(peers=frozenset({"10.9.0.2"}))).whole(3)
    assert found.splitlines()[:4] == [
        "table inet t",
        "delete table inet t",
        "table inet t {",
        '  comment "pystack revision 3";',
    ]
    assert "@@" not in found
    assert ("chain from_containers" in found) == ("udp dport 4789 ip saddr != @peers4 drop" in found) == bool(networks)


def test_a_service_that_changes_costs_its_elements() -> None:
    def made(backend: str) -> Ruleset:
        one = LoadBalancer(version=4, address="10.2.0.1", ports=(), backends=(backend,))
        return firewall.render("t", [NETWORK], [], [one])

    (change,) = made("10.1.0.3").changes(made("10.1.0.2")) or []
    assert {element.partition(" : ")[2] for element in change.out} == {"10.1.0.2"}
    assert {element.replace("10.1.0.3", "10.1.0.2") for element in change.into} == change.out


def test_an_element_of_several_fields_begins_each_at_four_bytes() -> None:
    shape = ElementType(("ipv4_addr", "inet_service"), ("ipv4_addr", "inet_service"))
    found = shape.encode("1.2.3.4 . 80 : 10.0.0.2 . 8080")
    assert bytes([1, 2, 3, 4]) + struct.pack("!H", 80) + b"\0\0" in found
    assert bytes([10, 0, 0, 2]) + struct.pack("!H", 8080) + b"\0\0" in found


def test_many_elements_are_several_messages() -> None:
    addresses = [f"10.0.{n >> 8}.{n & 255}" for n in range(nft_elements.BATCH_SIZE + 1)]
    added = list(nft_elements.add("t", "s", SHAPE, addresses))
    assert len(added) == 2
    assert all(flags & uapi.NLM_F_CREATE for _, flags, _, _ in added)
    assert sum(len(payload) for _, _, payload, _ in added) > 4 * len(addresses)
    assert len(list(nft_elements.delete("t", "s", SHAPE, addresses[:1]))) == 1
    assert list(nft_elements.add("t", "s", SHAPE, [])) == []
