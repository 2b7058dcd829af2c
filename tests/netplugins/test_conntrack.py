"""Flows of an earlier ruleset: which are stale, and that the kernel forgets exactly those."""

from __future__ import annotations

import socket

import pytest

from netplugins.conntrack import Flow, Targets, stale_flow_filter

UDP, TCP = socket.IPPROTO_UDP, socket.IPPROTO_TCP


def flow(protocol: int, port: int, answers: str) -> Flow:
    return Flow(family=socket.AF_INET, protocol=protocol, destination="10.0.0.1", port=port, answers=answers, key=b"")


def targets(**by_port: str) -> Targets:
    return Targets({(k[:3], int(k[3:])): frozenset(v.split()) for k, v in by_port.items()})


CASES = {
    "a UDP flow to who was there before": (targets(udp53="a"), targets(udp53="b"), "", flow(UDP, 53, "a"), True),
    "a UDP flow to who is still there": (targets(udp53="a"), targets(udp53="a b"), "", flow(UDP, 53, "a"), False),
    "a UDP flow from before the port was published": (targets(), targets(udp53="a"), "a", flow(UDP, 53, "10.0.0.1"), True),
    "a UDP flow to another port": (targets(udp53="a"), targets(udp53="b"), "", flow(UDP, 54, "x"), False),
    "a connection to an endpoint that is gone": (targets(tcp80="a"), targets(tcp80="b"), "b", flow(TCP, 80, "a"), True),
    "a connection to one that gets no new ones": (targets(tcp80="a b"), targets(tcp80="b"), "a b", flow(TCP, 80, "a"), False),
    "a UDP flow to one that gets no new ones": (targets(udp80="a b"), targets(udp80="b"), "a b", flow(UDP, 80, "a"), True),
}


@pytest.mark.parametrize(("before", "now", "alive", "one", "stale"), CASES.values(), ids=CASES)
def test_what_is_stale(before: Targets, now: Targets, alive: str, one: Flow, stale: bool) -> None:
    found = stale_flow_filter(before, now, set(alive.split()))
    assert found is not None
    assert found(one) is stale


def test_no_change_looks_at_nothing() -> None:
    assert stale_flow_filter(targets(udp53="a"), targets(udp53="a"), set()) is None
