"""Containers on networks: which addresses and ports they get, and who may have the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.contract.container import Attachment, Container, Port
from agent.contract.network import Network, Subnet
from agent.engine.networks.endpoints import EndpointTable
from agent.engine.networks.table import DEFAULT_NETWORK, NetworkTable
from agent.engine.records import Record
from agent.errors import ConflictError, ForbiddenError, NotFoundError
from agent.paths import Paths
from netplugins.bridge import BridgeDriver
from netplugins.driver import Driver

DRIVERS: dict[str, Driver] = {"bridge": BridgeDriver("ps")}


@pytest.fixture
def endpoints(tmp_path: Path) -> EndpointTable:
    networks = NetworkTable(tmp_path / "networks.json", "ps", DRIVERS, ("10.0.0.0/16",))
    networks.create(Network(name="a", subnets=(Subnet(cidr="10.1.0.0/24"),)))
    networks.create(Network(name="b", subnets=(Subnet(cidr="10.2.0.0/24"),), internal=True))
    return EndpointTable(networks, Paths(tmp_path, tmp_path, ""))


def record(name: str, *attachments: Attachment, ports: tuple[Port, ...] = (), task: str = "") -> Record:
    container = Container(image="x", attachments=attachments, ports=ports)
    return Record(
        id=name.ljust(64, "0"),
        name=name,
        container=container,
        created="",
        task=task,
        stack="s" if task else "",
        service="web" if task else "",
    )


def test_free_addresses_are_each_given_once_and_kept(endpoints: EndpointTable) -> None:
    first, second = record("one", Attachment(network="a")), record("two", Attachment(network="a"))
    for one in (first, second):
        endpoints.reserve(one)
    assert [e.ipv4 for r in (first, second) for e in r.endpoints] == ["10.1.0.254", "10.1.0.253"]
    endpoints.release(first)
    endpoints.reserve(second)
    assert second.endpoints[0].ipv4 == "10.1.0.253"


def test_a_container_without_networks_is_on_the_default_one_unless_a_stack_says_so(endpoints: EndpointTable) -> None:
    alone, task = record("alone"), record("task", task="s-web-1")
    for one in (alone, task):
        endpoints.assign(one)
    assert [e.network for e in alone.endpoints] == [DEFAULT_NETWORK]
    assert task.endpoints == []


def test_the_default_route_leads_out_by_priority_then_over_what_is_not_internal(endpoints: EndpointTable) -> None:
    plain = record("plain", Attachment(network="b"), Attachment(network="a"))
    endpoints.assign(plain)
    assert [e.network for e in plain.endpoints if e.default] == ["a"]
    asked = record("asked", Attachment(network="b", gw_priority=1), Attachment(network="a"))
    endpoints.assign(asked)
    assert [e.network for e in asked.endpoints if e.default] == ["b"]


def test_an_address_that_another_container_has_is_refused(endpoints: EndpointTable) -> None:
    endpoints.reserve(record("one", Attachment(network="a", ipv4="10.1.0.9")))
    with pytest.raises(ConflictError, match=r"Address already in use: 10\.1\.0\.9 of network a is container one's"):
        endpoints.reserve(record("two", Attachment(network="a", ipv4="10.1.0.9")))


def test_a_network_that_is_missing_waits_until_the_start(endpoints: EndpointTable) -> None:
    early = record("early", Attachment(network="later"))
    endpoints.assign(early, free=False)
    assert early.endpoints == []
    with pytest.raises(NotFoundError, match="network later not found"):
        endpoints.assign(early)


def test_a_port_is_published_by_one_container_or_one_service(endpoints: EndpointTable) -> None:
    port = (Port(target=80, published=8080),)
    endpoints.reserve(record("one", Attachment(network="a"), ports=port, task="s-web-1"))
    endpoints.reserve(record("two", Attachment(network="a"), ports=port, task="s-web-2"))
    with pytest.raises(ConflictError, match="port 8080/tcp is already published by"):
        endpoints.reserve(record("three", Attachment(network="a"), ports=port))


def test_one_network_more_and_one_less(endpoints: EndpointTable) -> None:
    one = record("one", Attachment(network="b"))
    endpoints.reserve(one)
    endpoints.attach(one)
    with pytest.raises(ForbiddenError, match="already exists in network b"):
        endpoints.with_one_more(one, Attachment(network="b"))
    endpoints.replace(one, endpoints.with_one_more(one, Attachment(network="a")))
    assert [(e.network, e.order, e.default) for e in one.endpoints] == [("b", 0, True), ("a", 1, False)]
    assert [v.endpoints[1].network for v in endpoints.views().values()] == ["a"]
    endpoints.replace(one, endpoints.without(one, "b"))
    assert [(e.network, e.default) for e in one.endpoints] == [("a", True)]
    with pytest.raises(ConflictError, match="is not connected to network b"):
        endpoints.without(one, "b")
    other = record("other")
    endpoints.reserve(other)
    endpoints.attach(other)
    with pytest.raises(ForbiddenError, match="Address already in use"):
        endpoints.with_one_more(other, Attachment(network="a", ipv4=one.endpoints[0].ipv4))
