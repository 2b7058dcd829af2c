"""From stacks and tasks to sites and upstreams: who has a host, whom it reaches, and with which share."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.contract.container import Attachment, Container, Port
from agent.contract.network import Network, Subnet
from agent.contract.task import Task
from orchestrator.ingress.model import STACK, IngressSettings
from orchestrator.ingress.routes import (
    Claim,
    Site,
    claims_of,
    conflicts,
    gateless,
    hosts_to_certify,
    issuer_of,
    nodes_apart,
    port_conflicts,
    sites_for,
    unseen,
)
from orchestrator.server.records import StackRecord
from orchestrator.stackfile.model import IngressRule, Service, Stack
from orchestrator.stackfile.workloads import AbortOn, StagedUpdate

SETTINGS = IngressSettings(image="i", issuer="acme")


def rule(host: str = "a.example.org", port: int = 80, **more: Any) -> IngressRule:
    return IngressRule(host=host, port=port, where="stack.yml:3:5", **more)


def stack(name: str, **services: tuple[IngressRule, ...]) -> Stack:
    made = tuple(Service(name=s, container=Container(image="i"), where="w", ingress=rules) for s, rules in services.items())
    return Stack(name=name, services=made)


def task(name: str, address: str, *, node: str = "n1", service: str = "web", network: str = "net", **more: Any) -> Task:
    container = Container(image="i", attachments=(Attachment(network=network, ipv4=address),), **more)
    return Task(name=name, stack="s", service=service, node=node, container=container)


def network(driver: str = "overlay") -> dict[str, Network]:
    return {"net": Network(name="net", driver=driver, subnets=(Subnet(cidr="10.5.0.0/24"),))}


def sites(
    claims: list[Claim], tasks: list[Task], *ready: set[str], driver: str = "overlay", node: str = "n1"
) -> dict[str, Site]:
    backends = ready or ({t.name for t in tasks},)
    made = sites_for(node, claims, SETTINGS, tasks, network(driver), backends, {"n1": "10.0.0.1", "n2": "10.0.0.2"})
    return {s.rule.host + s.rule.path: s for s in made}


def shares(site: Site) -> dict[str, int]:
    return {u.dial: u.shares for u in site.upstreams}


def test_a_host_reaches_the_tasks_that_are_ready_on_every_node() -> None:
    tasks = [task("w1", "10.5.0.1"), task("w2", "10.5.0.2", node="n2"), task("w3", "10.5.0.3")]
    found = sites(claims_of([stack("s", web=(rule(),))]), tasks, {"w1", "w2"}, {"w1", "w2", "w3"})
    assert shares(found["a.example.org/"]) == {"10.5.0.1:80": 1, "10.5.0.2:80": 1}


def test_where_none_is_ready_those_that_run_are_tried() -> None:
    tasks = [task("w1", "10.5.0.1"), task("w2", "10.5.0.2")]
    found = sites(claims_of([stack("s", web=(rule(),))]), tasks, set(), {"w2"})
    assert shares(found["a.example.org/"]) == {"10.5.0.2:80": 1}


def test_a_bridge_is_reached_on_its_own_host_alone() -> None:
    tasks = [task("w1", "10.5.0.1"), task("w2", "10.5.0.1", node="n2")]
    found = sites(claims_of([stack("s", web=(rule(),))]), tasks, driver="bridge", node="n2")
    assert shares(found["a.example.org/"]) == {"10.5.0.1:80": 1}


def test_a_service_on_the_hosts_network_is_reached_at_its_node() -> None:
    tasks = [task("w1", "", network_mode="host"), task("w2", "", node="n2", network_mode="host")]
    found = sites(claims_of([stack("s", web=(rule(),))]), tasks)
    assert shares(found["a.example.org/"]) == {"127.0.0.1:80": 1, "10.0.0.2:80": 1}


@pytest.mark.parametrize(
    ("weights", "count", "expected"),
    [
        ((90, 10), (1, 1), {"10.5.0.1:80": 9, "10.5.1.1:81": 1}),
        ((1, 1), (2, 1), {"10.5.0.1:80": 1, "10.5.0.2:80": 1, "10.5.1.1:81": 2}),
        ((0, 5), (1, 1), {"10.5.1.1:81": 1}),
        ((0, 5), (1, 0), {"10.5.0.1:80": 1}),
    ],
)
def test_services_of_one_stack_share_a_host_by_weight_whatever_their_replicas(
    weights: tuple[int, int], count: tuple[int, int], expected: dict[str, int]
) -> None:
    claims = claims_of([stack("s", old=(rule(weight=weights[0]),), new=(rule(port=81, weight=weights[1]),))])
    tasks = [task(f"o{i}", f"10.5.0.{i}", service="old") for i in range(1, count[0] + 1)]
    tasks += [task(f"n{i}", f"10.5.1.{i}", service="new") for i in range(1, count[1] + 1)]
    assert shares(sites(claims, tasks)["a.example.org/"]) == expected


def test_long_paths_come_before_short_ones_and_wildcards_last() -> None:
    claims = claims_of([stack("s", web=(rule("*.example.org"), rule(), rule(path="/a"), rule(path="/a/b")))])
    assert list(sites(claims, [])) == ["a.example.org/a/b", "a.example.org/a", "a.example.org/", "*.example.org/"]


def test_a_host_and_path_of_two_stacks_is_a_conflict_with_both_places() -> None:
    one, other = stack("s", web=(rule(), rule(path="/x"))), stack("t", api=(rule(), rule("b.example.org")))
    (told,) = conflicts(other, [one, other])
    assert "a.example.org/ is answered by service web of stack s already" in told
    assert told.count("stack.yml:3:5") == 2
    assert conflicts(one, [one]) == []


def test_of_two_stacks_with_one_host_the_first_is_answered() -> None:
    claims = claims_of([stack("t", web=(rule(port=2),)), stack("s", web=(rule(port=1),))])
    assert sites(claims, [task("w1", "10.5.0.1")])["a.example.org/"].rule.port == 1


@pytest.mark.parametrize(
    ("host", "tls", "issuer"),
    [
        ("a.example.org", "", "acme"),
        ("a.internal", "", "internal"),
        ("localhost", "", "internal"),
        ("a.internal", "acme", "acme"),
        ("a.example.org", "off", "off"),
    ],
)
def test_names_that_no_authority_certifies_are_the_clusters_own(host: str, tls: Any, issuer: str) -> None:
    assert issuer_of(rule(host, tls=tls), SETTINGS) == issuer
    assert (host in hosts_to_certify([Claim("s", "web", rule(host, tls=tls))], SETTINGS)) == (issuer != "off")


@pytest.mark.parametrize(
    ("driver", "on_host", "apart"),
    [("overlay", "", set()), ("overlay", "host", {"n2"}), ("bridge", "", {"n1", "n2"})],
    ids=["on an overlay all see the same", "on a node's own network that node does not", "on a bridge each sees its own"],
)
def test_proxies_that_see_the_same_are_told_apart_from_the_others(driver: str, on_host: str, apart: set[str]) -> None:
    claims = claims_of([stack("s", web=(rule(),))])
    other = task("o1", "10.5.0.9", node="n3", service="other", network_mode="host")
    tasks = [task("w1", "10.5.0.1"), task("w2", "10.5.0.2", node="n2", network_mode=on_host), other]
    assert nodes_apart(claims, tasks, network(driver)) == apart
    nodes = {"n1", "n2", "n3", "n4"}
    seen = {n: sites(claims, tasks, driver=driver, node=n) for n in nodes}
    assert all(seen[n] == seen["n4"] for n in nodes - apart)
    assert all(seen[n] != seen["n4"] for n in apart)


def publishing(name: str, *ports: int, protocol: str = "tcp") -> Stack:
    published = tuple(Port(target=80, published=p, protocol=protocol) for p in ports)
    return Stack(name=name, services=(Service(name="p", container=Container(image="i", ports=published), where="f:2"),))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (publishing("a", 443), None, "port 443 is that of the cluster's ingress"),
        (publishing("a", 443, protocol="udp"), None, ""),
        (publishing("a", 8080), None, ""),
        (publishing("a", 5432), stack("b", db=(rule("", tcp=5432),)), "port 5432 is that of the cluster's ingress"),
        (stack("a", db=(rule("", tcp=80),)), None, "port 80 is for http and https"),
        (stack("a", db=(rule("", tcp=5432),)), publishing("b", 5432), "port 5432 is published by service p already (f:2)"),
        (stack("a", db=(rule("", tcp=5432),)), publishing("b", 5433), ""),
        (publishing("system-ingress", 443), None, None),
    ],
)
def test_a_port_has_one_use(one: Stack, other: Stack | None, said: str | None) -> None:
    if said is None:  # the proxies' own stack
        one = msgspec.structs.replace(one, name=STACK)
    found = port_conflicts(one, SETTINGS, [one, *([other] if other else [])])
    assert len(found) == bool(said)
    assert (said or "") in "".join(found)


def test_what_only_haproxy_does_is_named_where_there_is_none() -> None:
    one = stack("a", db=(rule("", tcp=5432),), web=(rule(rate="10/s"), rule("b.example.org")))
    assert [line.partition(": the ingress")[0].rpartition(".")[2] for line in gateless(one)] == ["tcp", "rate_limit"]


def test_an_update_that_watches_requests_is_told_where_nobody_sees_them() -> None:
    def staged(abort: AbortOn) -> Stack:
        update = StagedUpdate(strategy="canary", abort_on=abort)
        return Stack(name="a", services=(Service(name="w", container=Container(image="i"), where="f:1", staged=update),))

    there = StackRecord(stack=staged(AbortOn()), revision=1, updated="")
    assert len(unseen(staged(AbortOn(error_rate=1.0)), there)) == 1
    assert unseen(staged(AbortOn()), there) == []
    assert unseen(staged(AbortOn(error_rate=1.0)), None) == []  # it is new: nothing is updated
