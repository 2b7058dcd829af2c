"""Which port of a range each task takes: a table of the ports that the tasks then publish."""

from __future__ import annotations

import msgspec
import pytest

from agent.contract.container import Attachment, Container, Port
from agent.contract.network import Network
from agent.contract.task import Task
from orchestrator.errors import PystackError
from orchestrator.placement.context import PlacementContext
from orchestrator.placement.node import Node
from orchestrator.planning.expand import SINGLE_NODE
from orchestrator.planning.manifests import service_addresses
from orchestrator.planning.port_ranges import with_ports
from orchestrator.stackfile.model import PortRange, Service, Stack

TWO = PlacementContext(nodes=(Node(name="n1", id="1"), Node(name="n2", id="2")), ready=frozenset({"n1", "n2"}), local="n1")


def service(name: str, first: int = 8080, last: int = 8082, *, ports: tuple[Port, ...] = (), **more: object) -> Service:
    one = PortRange(port=Port(target=80, published=first, **more), last=last)  # type: ignore[arg-type]
    return Service(name=name, container=Container(image="i", ports=ports), where="f:1:1", port_ranges=(one,))


def tasks(one: Service, *nodes: str) -> list[Task]:
    return [
        Task(
            name=f"t-{one.name}-{i}",
            stack="t",
            service=one.name,
            container=one.container,
            index=i,
            node=node,
            container_name="",
            where=one.where,
        )
        for i, node in enumerate(nodes, 1)
    ]


def published(
    services: list[Service], placed: list[Task], context: PlacementContext, known: tuple[Task, ...] = ()
) -> list[list[int]]:
    found = with_ports(Stack(name="t", services=tuple(services)), placed, {t.name: t for t in known}, context)
    return [[p.published for p in t.container.ports] for t in found]


def test_each_replica_on_a_host_takes_the_next_port() -> None:
    web, api = service("web"), service("api", 8081, 8085)
    placed = tasks(web, "local", "local") + tasks(api, "local")
    assert published([web, api], placed, SINGLE_NODE) == [[8080], [8081], [8082]]


def test_who_has_a_port_keeps_it() -> None:
    web = service("web")
    placed = tasks(web, "local", "local", "local")
    second = msgspec.structs.replace(placed[1], container=Container(image="old", ports=(Port(target=80, published=8080),)))
    assert published([web], placed, SINGLE_NODE, (second,)) == [[8081], [8080], [8082]]


def test_a_port_that_is_fixed_or_another_stacks_is_passed_over() -> None:
    web, fixed = service("web"), service("db", 9000, 9001, ports=(Port(target=5, published=8080),))
    other = msgspec.structs.replace(
        tasks(web, "local")[0],
        stack="u",
        container=Container(image="i", ports=(Port(target=1, published=8081, host_ip="127.0.0.1"),)),
    )
    context = msgspec.structs.replace(SINGLE_NODE, others=(other,))
    assert published([web, fixed], tasks(web, "local") + tasks(fixed, "local"), context) == [[8082], [8080, 9000]]


def test_too_many_replicas_are_told() -> None:
    web = service("web", 8080, 8081)
    with pytest.raises(PystackError, match=r"f:1:1: t-web-3 finds no free port: all of 8080-8081/tcp are taken on node local"):
        published([web], tasks(web, "local", "local", "local"), SINGLE_NODE)


def test_where_any_node_answers_each_port_does() -> None:
    web = service("web")
    assert published([web], tasks(web, "n1", "n2"), TWO) == [[8080, 8081, 8082]] * 2


@pytest.mark.parametrize("more", [{"mode": "host"}, {"host_ip": "10.0.0.1"}])
def test_what_is_a_nodes_own_begins_anew_on_each_node(more: dict[str, str]) -> None:
    web = service("web", **more)  # type: ignore[arg-type]
    assert published([web], tasks(web, "n1", "n2", "n1"), TWO) == [[8080], [8080], [8081]]


def test_a_task_holds_its_own_port_of_a_range_and_shares_the_others() -> None:
    web = service("web", ports=(Port(target=81, published=90),))
    placed = with_ports(Stack(name="t", services=(web,)), tasks(web, "local", "local"), {}, SINGLE_NODE)
    on = [
        msgspec.structs.replace(
            t,
            container=msgspec.structs.replace(
                t.container, attachments=(Attachment(network="t_default", ipv4=f"10.0.0.{t.index}"),)
            ),
        )
        for t in placed
    ]
    networks = {"t_default": Network(name="t_default", stack="t", driver="bridge")}
    [virtual] = service_addresses(on, on, networks, alone=True)
    assert [p.published for p in virtual.ports] == [90]
    assert len(virtual.backends) == 2
