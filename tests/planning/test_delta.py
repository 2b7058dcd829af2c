"""What goes to a node is what changed, and leads to the same as the whole."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.cluster import RemoteEndpoint, ServiceAddress
from agent.contract.container import Container
from agent.contract.manifest import PARTS, Manifest, apply_delta, diff, entry_key
from agent.contract.network import AddressAssignment, Network
from agent.contract.task import Task
from agent.contract.volume import Volume

NAMES = st.sampled_from("abcdef")
MANIFESTS = st.builds(
    Manifest,
    revision=st.integers(0, 9),
    node=st.just("n1"),
    underlay=st.sampled_from(["", "10.0.0.1"]),
    networks=st.lists(st.builds(Network, name=NAMES, internal=st.booleans()), unique_by=lambda n: n.name).map(tuple),
    volumes=st.lists(st.builds(Volume, name=NAMES), unique_by=lambda v: v.name).map(tuple),
    tasks=st.lists(
        st.builds(Task, name=NAMES, stack=st.just("s"), service=NAMES, container=st.builds(Container, image=NAMES)),
        unique_by=lambda t: t.name,
    ).map(tuple),
    remote_endpoints=st.lists(
        st.builds(RemoteEndpoint, network=NAMES, underlay=NAMES, ipv4=st.sampled_from(["10.1.0.2", "10.1.0.3"])),
        unique_by=lambda p: (p.network, p.ipv4),
    ).map(tuple),
    service_addresses=st.lists(
        st.builds(
            ServiceAddress, service=NAMES, network=NAMES, backends=st.lists(st.builds(AddressAssignment, name=NAMES)).map(tuple)
        ),
        unique_by=lambda v: (v.service, v.network),
    ).map(tuple),
)


def by_key(manifest: Manifest) -> dict[str, dict[str, object]]:
    return {part: {entry_key(part, e): e for e in getattr(manifest, part)} for part in PARTS}


@given(MANIFESTS, MANIFESTS)
def test_a_delta_leads_to_the_whole(old: Manifest, new: Manifest) -> None:
    old, new = msgspec.structs.replace(old, serial="1"), msgspec.structs.replace(new, serial="2")
    delta = msgspec.json.decode(msgspec.json.encode(diff(old, new)), type=type(diff(old, new)))
    made = apply_delta(old, delta)
    assert by_key(made) == by_key(new)
    assert (made.revision, made.serial, made.node, made.underlay) == (new.revision, new.serial, new.node, new.underlay)


def test_it_is_refused_on_another_base() -> None:
    old, new = Manifest(serial="1"), Manifest(serial="2")
    with pytest.raises(ValueError, match="one of manifest '1'"):
        apply_delta(Manifest(serial="0"), diff(old, new))


def test_bytes_follow_the_change_and_not_the_network() -> None:
    """One endpoint more, beside a thousand and beside ten."""

    def manifest(count: int, serial: str) -> Manifest:
        peers = tuple(
            RemoteEndpoint(network="x", underlay=f"10.0.0.{i % 50}", ipv4=f"10.1.{i // 250}.{i % 250}") for i in range(count)
        )
        return Manifest(serial=serial, remote_endpoints=peers)

    small, large = (len(msgspec.json.encode(diff(manifest(n, "1"), manifest(n + 1, "2")))) for n in (10, 1000))
    assert abs(large - small) < 10
