"""What the drivers of LANs ask for: links on a parent, VLANs where the host has none, a bridge without a parent. Pure."""

from __future__ import annotations

import pytest

from netplugins.driver import Bridge, Endpoint, HostCapabilities, Network, ParentedLink, Subnet, Vlan
from netplugins.macvlan import IpvlanDriver, MacvlanDriver, ParentDriver

HOST = HostCapabilities(features=frozenset({"macvlan", "ipvlan", "vlan"}), links=frozenset({"lan0"}))
SUBNETS = (Subnet("10.0.0.0/24", "10.0.0.1"), Subnet("fd00::/64", ""))
ENDPOINT = Endpoint(id="0123456789abcdef", network="n", netns="/n", ipv4="10.0.0.5", ipv6="fd00::5")


def network(**options: str) -> Network:
    return Network(name="n", link="psb1", subnets=SUBNETS, options={"parent": "lan0", **options})


def link_of(driver: ParentDriver, of: Network, endpoint: Endpoint = ENDPOINT, host: HostCapabilities = HOST) -> ParentedLink:
    [link] = [o for o in driver.desired_state(of, [endpoint], host).objects if isinstance(o, ParentedLink)]
    return link


def test_a_container_has_a_link_on_the_parent() -> None:
    link = link_of(MacvlanDriver(), network())
    assert (link.kind, link.mode, link.parent, link.netns, link.interface) == ("macvlan", "bridge", "lan0", "/n", "eth0")
    assert (link.addresses, link.gateways) == (("10.0.0.5/24", "fd00::5/64"), ("10.0.0.1",))
    assert len(link.name) <= 15
    assert link.mac
    assert link.probed


def test_nothing_is_on_the_host_without_a_container() -> None:
    assert not MacvlanDriver().desired_state(network(parent="lan0.7"), [], HOST).objects


def test_a_vlan_that_the_host_lacks_is_made_once() -> None:
    of = network(parent="lan0.7")
    other = Endpoint(id="f" * 16, network="n", netns="/m", ipv4="10.0.0.6")
    objects = MacvlanDriver().desired_state(of, [ENDPOINT, other], HOST).objects
    [vlan] = [o for o in objects if isinstance(o, Vlan)]
    assert (vlan.parent, vlan.vid) == ("lan0", 7)
    assert {o.parent for o in objects if isinstance(o, ParentedLink)} == {vlan.name}
    own = HostCapabilities(features=HOST.features, links=HOST.links | {"lan0.7"})
    assert link_of(MacvlanDriver(), of, host=own).parent == "lan0.7"


def test_without_a_parent_it_is_a_bridge_that_leads_nowhere() -> None:
    objects = MacvlanDriver().desired_state(network(parent=""), [ENDPOINT], HOST).objects
    assert any(isinstance(o, Bridge) for o in objects)
    assert not any(isinstance(o, ParentedLink | Vlan) for o in objects)


@pytest.mark.parametrize(
    ("driver", "options", "mode", "mac", "onlink", "probed"),
    [
        (MacvlanDriver(), {"macvlan_mode": "vepa"}, "vepa", True, False, True),
        (MacvlanDriver(), {"mode": "private"}, "private", True, False, True),
        (MacvlanDriver(), {"mode": "passthru"}, "passthru", False, False, True),
        (IpvlanDriver(), {}, "l2", False, False, True),
        (IpvlanDriver(), {"ipvlan_mode": "l3"}, "l3", False, True, False),
    ],
)
def test_modes(driver: ParentDriver, options: dict[str, str], mode: str, mac: bool, onlink: bool, probed: bool) -> None:
    link = link_of(driver, network(**options))
    assert (link.mode, bool(link.mac), link.onlink, link.probed) == (mode, mac, onlink, probed)
    assert link.gateways == (() if onlink else ("10.0.0.1",))


def test_a_mac_that_is_asked_for_is_kept_but_by_ipvlan() -> None:
    asked = Endpoint(id="0" * 16, network="n", netns="/n", ipv4="10.0.0.5", mac="02:00:00:00:00:01")
    assert link_of(MacvlanDriver(), network(), asked).mac == "02:00:00:00:00:01"
    assert link_of(MacvlanDriver(), network(mode="passthru"), asked).mac == "02:00:00:00:00:01"
    assert link_of(IpvlanDriver(), network(), asked).mac == ""


@pytest.mark.parametrize(("default", "internal"), [(False, False), (True, True)])
def test_there_is_no_gateway_where_nothing_leaves(default: bool, internal: bool) -> None:
    of = Network(name="n", link="psb1", subnets=SUBNETS, internal=internal, options={"parent": "lan0"})
    endpoint = Endpoint(id="0" * 16, network="n", netns="/n", ipv4="10.0.0.5", default=default)
    assert link_of(MacvlanDriver(), of, endpoint).gateways == ()


@pytest.mark.parametrize(
    ("driver", "options", "host", "missing"),
    [
        (MacvlanDriver(), {}, HOST, []),
        (MacvlanDriver(), {}, HostCapabilities(links=frozenset({"lan0"})), ["the kernel has no macvlan (CONFIG_MACVLAN)"]),
        (MacvlanDriver(), {"mode": "x"}, HOST, ["macvlan has no mode 'x': its modes are bridge, private, vepa, passthru"]),
        (MacvlanDriver(), {"parent": "eth9"}, HOST, ["the parent link eth9 does not exist: the host has lan0"]),
        (
            MacvlanDriver(),
            {"parent": "lan0.7"},
            HostCapabilities(features=frozenset({"macvlan"}), links=frozenset({"lan0"})),
            ["the parent link lan0.7 does not exist, and the kernel cannot create it: no VLANs (CONFIG_VLAN_8021Q)"],
        ),
        (
            IpvlanDriver(),
            {"ipvlan_flag": "x"},
            HOST,
            ["ipvlan has no flag 'x': its flags are bridge, private, vepa"],
        ),
    ],
)
def test_what_is_missing_is_said(
    driver: ParentDriver, options: dict[str, str], host: HostCapabilities, missing: list[str]
) -> None:
    assert driver.missing(network(**options), host) == missing
