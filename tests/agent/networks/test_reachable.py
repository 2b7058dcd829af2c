"""Connections and names go to nodes that answer, wherever there are any."""

from __future__ import annotations

from agent.contract.cluster import RemoteEndpoint, ServiceAddress
from agent.contract.manifest import Manifest
from agent.contract.network import AddressAssignment
from agent.engine.networks.reachable import without_silent

NEAR, FAR, FARTHER = "10.1.0.2", "10.1.0.3", "10.1.0.4"


def manifest(*backends: str) -> Manifest:
    return Manifest(
        service_addresses=(
            ServiceAddress(
                service="s/web",
                network="net",
                ipv4="10.2.0.1",
                backends=tuple(AddressAssignment(name=a, ipv4=a) for a in backends),
            ),
        ),
        remote_endpoints=(
            RemoteEndpoint(network="net", underlay="192.0.2.2", ipv4=FAR, mac="m1", names=("web-2", "web")),
            RemoteEndpoint(network="net", underlay="192.0.2.3", ipv4=FARTHER, mac="m2", names=("web-3", "web")),
        ),
    )


def addresses(found: Manifest) -> list[str]:
    return [b.ipv4 for b in found.service_addresses[0].backends]


def names(found: Manifest) -> list[tuple[str, ...]]:
    return [p.names for p in found.remote_endpoints]


def test_backends_of_a_silent_node_get_no_connections() -> None:
    found = without_silent(manifest(NEAR, FAR, FARTHER), {"192.0.2.2"})
    assert addresses(found) == [NEAR, FARTHER]
    assert names(found) == [("web-2",), ("web-3", "web")]
    assert {p.underlay for p in found.remote_endpoints} == {"192.0.2.2", "192.0.2.3"}  # connections that there are go on


def test_a_node_that_is_cut_off_keeps_what_it_has_itself() -> None:
    silent = {"192.0.2.2", "192.0.2.3"}
    assert addresses(without_silent(manifest(NEAR, FAR, FARTHER), silent)) == [NEAR]
    assert addresses(without_silent(manifest(FAR, FARTHER), silent)) == [FAR, FARTHER]
    assert names(without_silent(manifest(FAR, FARTHER), silent)) == names(manifest())


def test_as_long_as_all_answer_nothing_is_made_anew() -> None:
    whole = manifest(NEAR, FAR)
    assert without_silent(whole, set()) is whole
    assert without_silent(whole, {"192.0.2.9"}) is whole
