"""Elements of nftables maps that are changed over netlink, judged by what nft itself lists then."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netplugins import firewall
from netplugins.driver import LoadBalancer, PortMapping
from netplugins.errors import NetworkError
from netplugins.linux import monitors, netlink, netns
from netplugins.linux.uapi import NETLINK_NETFILTER

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


def service(number: int, version: int, backends: int, *, ports: bool) -> LoadBalancer:
    prefix, sep = ("10.0.", ".") if version == 4 else ("fd00::", ":")
    return LoadBalancer(
        version=version,
        address=f"{prefix}9{sep}{number + 1}",
        backends=tuple(f"{prefix}1{sep}{n + 1}" for n in range(backends)),
        ports=((8000 + number, "tcp", 80), (9000 + number, "udp", 53)) if ports else (),
    )


def port(number: int, host_ip: str) -> PortMapping:
    return PortMapping(endpoint="e", host_ip=host_ip, port=number, protocol="tcp", ipv4="10.0.1.7", ipv6="fd00::7", target=80)


SERVICES = st.lists(
    st.builds(service, st.integers(0, 5), st.sampled_from((4, 6)), st.integers(0, 12), ports=st.booleans()),
    max_size=6,
    unique_by=lambda s: s.address,
)
PORTS = st.lists(
    st.builds(port, st.integers(1, 65535), st.sampled_from(("", "0.0.0.0", "::", "127.0.0.1", "fd00::1"))),
    max_size=5,
    unique_by=lambda p: p.port,
)
LOCAL = st.sets(st.sampled_from(("10.0.1.1", "10.0.1.2", "fd00:1::1")))
STATES = st.lists(st.tuples(SERVICES, PORTS, LOCAL), min_size=2, max_size=4)
State = tuple[list[LoadBalancer], list[PortMapping], set[str]]


@given(STATES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_any_row_of_changes_ends_in_the_table_that_is_wanted(states: list[State]) -> None:
    def walk() -> list[str]:
        made: firewall.Ruleset | None = None
        with netlink.Socket(NETLINK_NETFILTER) as sock:
            for services, ports, local in states:
                wanted = firewall.render("t", [], ports, services, sorted(local))
                changes = wanted.changes(made) if made else None
                if changes is None:
                    firewall.apply(wanted.whole(1))
                elif changes:
                    wanted.amend(changes, sock)
                made = wanted
                if wrong := firewall.differences(wanted):
                    return wrong
        return []

    assert netns.isolated(walk) == []


def many(backend: str, services: int = 60) -> firewall.Ruleset:
    return firewall.render(
        "t",
        [],
        [],
        [
            LoadBalancer(version=4, address=f"10.1.{n // 200}.{n % 200 + 1}", backends=(backend,), ports=())
            for n in range(services)
        ],
    )


def test_many_elements_are_changed_in_several_messages_of_one_transaction() -> None:
    def walk() -> list[str]:
        before, after = many("10.0.0.1"), many("10.0.0.2")
        firewall.apply(before.whole(1))
        changes = after.changes(before)
        assert changes
        assert [len(c.out) for c in changes] == [960]
        with netlink.Socket(NETLINK_NETFILTER) as sock, monitors.ruleset_monitor() as monitor:
            after.amend(changes, sock)
            assert monitors.transactions(monitor) == 1
        return firewall.differences(after)

    assert netns.isolated(walk) == []


def test_a_table_of_thousands_is_one_transaction_of_which_all_is_heard() -> None:
    """A monitor that missed some would have the table made again, whose events it would miss too."""

    def walk() -> int:
        with monitors.ruleset_monitor() as monitor:
            firewall.apply(many("10.0.0.1", 3000).whole(1))
            return monitors.transactions(monitor)

    assert netns.isolated(walk) == 1


def test_a_transaction_that_fails_leaves_all_as_it_was() -> None:
    def walk() -> tuple[list[str], str]:
        before, after = many("10.0.0.1"), many("10.0.0.2")
        firewall.apply(before.whole(1))
        changes = after.changes(before)
        assert changes
        wrong = firewall.ElementChange(changes[0].name, frozenset({"10.9.9.9 . 0 : 10.0.0.1"}), frozenset())
        with netlink.Socket(NETLINK_NETFILTER) as sock:
            try:
                after.amend([*changes, wrong], sock)
            except NetworkError as error:
                said = str(error)
            after_failure = firewall.differences(before)
            after.amend(changes, sock)  # the socket is as good as before
            return after_failure + firewall.differences(after), said

    wrong, said = netns.isolated(walk)
    assert wrong == []
    assert said == "elements of service4_16: No such file or directory (ENOENT)"
