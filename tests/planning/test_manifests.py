"""What nodes are sent: manifests that are made of those before say what manifests made anew say, and deltas lead to them."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.container import Attachment, Container, Port
from agent.contract.manifest import PARTS, apply_delta, diff, entry_key
from agent.contract.network import AddressAssignment, Network
from agent.contract.task import Task
from agent.contract.volume import Volume
from orchestrator.placement.node import Node
from orchestrator.planning.manifests import Manifests

NODES = [Node(name=f"n{n}", id=f"id{n}", underlay=f"10.9.0.{n}", target=f"root@10.9.0.{n}") for n in range(1, 5)]
VIPS = (AddressAssignment(name="s0", ipv4="10.1.255.1"), AddressAssignment(name="s1", ipv4="10.1.255.2"))
HOSTS = tuple(AddressAssignment(name=n.name, ipv4=f"10.1.254.{i}") for i, n in enumerate(NODES))
NETWORKS = {
    "wide": Network(name="wide", stack="a", driver="overlay", vips=VIPS, hosts=HOSTS),
    "own": Network(name="own", stack="a", driver="bridge", vips=VIPS),
}
VOLUMES = {"v": Volume(name="v", stack="a", node="n1")}


def task(number: int, node: str, image: str, *, oneoff: bool) -> Task:
    ports = (Port(target=80, published=8080),) if number % 2 else ()
    attachments = tuple(Attachment(network=n, ipv4=f"10.{i}.0.{number}", aliases=("web",)) for i, n in enumerate(NETWORKS))
    container = Container(image=image, attachments=attachments, ports=ports)
    return Task(
        name=f"a-{number}",
        stack="a",
        service=f"s{number % 2}",
        container=container,
        node=node,
        desired="oneoff" if oneoff else "running",
    )


TASKS = st.lists(
    st.builds(
        task,
        st.integers(0, 7),
        st.sampled_from([n.name for n in NODES]),
        st.sampled_from(["one", "two"]),
        oneoff=st.booleans(),
    ),
    unique_by=lambda t: t.name,
)
MOMENTS = st.tuples(
    st.lists(st.sampled_from(NODES), min_size=1, unique_by=lambda n: n.name),
    st.sets(st.sampled_from(sorted(NETWORKS))),
    TASKS,
    st.sets(st.sampled_from([f"a-{n}" for n in range(8)])),
)


@given(st.lists(MOMENTS, min_size=2, max_size=4))
@settings(deadline=None)
def test_what_is_made_of_the_last_is_what_is_made_anew(
    moments: list[tuple[list[Node], set[str], list[Task], set[str]]],
) -> None:
    last: Manifests | None = None
    for revision, (nodes, kept, tasks, ready) in enumerate(moments):
        networks = {n: NETWORKS[n] for n in sorted(kept)}
        before = last
        last = Manifests(nodes, revision, networks, VOLUMES, tasks, [ready, {t.name for t in tasks}], before)
        anew = Manifests(nodes, revision, networks, VOLUMES, tasks, [ready, {t.name for t in tasks}])
        for node in NODES:
            assert last.of(node.name) == anew.of(node.name)
            if before:
                was, now = before.of(node.name), last.of(node.name)
                patched = apply_delta(was, diff(was, now))
                for part in PARTS:
                    found, wanted = getattr(patched, part), getattr(now, part)
                    assert {entry_key(part, e): e for e in found} == {entry_key(part, e): e for e in wanted}


def test_a_change_of_one_task_costs_each_node_that_task() -> None:
    tasks = [task(n, f"n{n % 4 + 1}", "one", oneoff=False) for n in range(8)]
    ready = [{t.name for t in tasks}]
    first = Manifests(NODES, 1, NETWORKS, VOLUMES, tasks, ready)
    tasks[3] = msgspec.structs.replace(tasks[3], container=msgspec.structs.replace(tasks[3].container, hostname="new"))
    second = Manifests(NODES, 2, NETWORKS, VOLUMES, tasks, ready, first)
    for node in ("n1", "n2", "n3"):
        delta = diff(first.of(node), second.of(node))
        assert [e.ipv4 for e in delta.put.remote_endpoints] == ["10.0.0.3"]
        assert not delta.drop
        assert not delta.put.service_addresses
    kept = {id(e) for e in first.of("n1").remote_endpoints}
    assert sum(id(e) not in kept for e in second.of("n1").remote_endpoints) == 1
