"""The networks of a node: which there are, how they are found, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.contract.network import Network, Subnet
from agent.engine.networks import addresses
from agent.engine.networks.table import DEFAULT_NETWORK, NetworkTable, network_id
from agent.errors import AgentError, BadRequestError, ConflictError, ForbiddenError, NotFoundError
from netplugins.bridge import BridgeDriver

POOLS = ("10.0.0.0/22",)


def table(path: Path) -> NetworkTable:
    return NetworkTable(path / "networks.json", "ps", {"bridge": BridgeDriver("ps")}, POOLS)


def test_a_network_made_by_hand_outlives_the_agent(tmp_path: Path) -> None:
    made = table(tmp_path).create(Network(name="n"), ipv6=True)
    assert [s.cidr for s in made.subnets] == ["10.0.3.0/24", addresses.unique_local_subnet("n").cidr]
    assert table(tmp_path).all == {"n": made}


def test_a_network_is_found_by_name_and_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    networks = table(tmp_path)
    made = networks.create(Network(name="n"))
    assert networks.get("n") == networks.get(network_id("n")[:6]) == made
    with pytest.raises(NotFoundError):
        networks.get(network_id("n")[:5])
    assert not networks.has("m")
    assert networks.get(DEFAULT_NETWORK).name == DEFAULT_NETWORK  # made when first asked for


def test_no_more_subnets_than_the_pools_have(tmp_path: Path) -> None:
    networks = table(tmp_path)
    subnets = [networks.create(Network(name=f"n{i}")).subnets[0].cidr for i in range(4)]
    assert sorted(subnets) == ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]
    with pytest.raises(AgentError, match="address_pools"):
        networks.create(Network(name="one-more"))
    assert "one-more" not in networks.all


REFUSED = {
    "a name that is taken": (Network(name="there"), ConflictError, "already exists"),
    "a driver that nobody knows": (Network(name="n", driver="weave"), NotFoundError, 'plugin "weave" not found'),
    "a subnet that overlaps": (
        Network(name="n", subnets=(Subnet(cidr="10.9.0.128/25"),)),
        ForbiddenError,
        r"Pool overlaps .*: 10\.9\.0\.128/25 of network .* overlaps with 10\.9\.0\.0/24",
    ),
    "no subnet at all": (Network(name="n", subnets=(Subnet(cidr="x"),)), BadRequestError, "network n: 'x'"),
    "a gateway elsewhere": (
        Network(name="n", subnets=(Subnet(cidr="10.8.0.0/24", gateway="10.7.0.1"),)),
        BadRequestError,
        r"10\.7\.0\.1 is not within 10\.8\.0\.0/24",
    ),
    "a range wider than the subnet": (
        Network(name="n", subnets=(Subnet(cidr="10.8.0.0/24", ip_range="10.8.0.0/16"),)),
        BadRequestError,
        "is not within",
    ),
}


@pytest.mark.parametrize(("network", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_no_trace(tmp_path: Path, network: Network, error: type[Exception], text: str) -> None:
    networks = table(tmp_path)
    networks.create(Network(name="there", subnets=(Subnet(cidr="10.9.0.0/24"),)))
    with pytest.raises(error, match=text):
        networks.create(network)
    assert set(networks.all) == {"there"}


def test_a_network_of_a_stack_stays_until_its_containers_have_left(tmp_path: Path) -> None:
    networks = table(tmp_path)
    networks.set_planned([Network(name="s_a", stack="s"), Network(name="s_b", stack="s")])
    with pytest.raises(ConflictError, match="belongs to stack s"):
        networks.remove("s_a", [])
    networks.set_planned([])
    networks.drop_left({"s_a"})
    assert set(networks.all) == {"s_a"}
    networks.drop_left(set())
    assert networks.all == {}


def test_a_network_in_use_is_not_removed(tmp_path: Path) -> None:
    networks = table(tmp_path)
    networks.create(Network(name="n"))
    with pytest.raises(ConflictError, match="has active endpoints"):
        networks.remove("n", ["web"])
    networks.remove("n", [])
    assert table(tmp_path).all == {}


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "networks.json").write_text("{")
    assert table(tmp_path).all == {}
    assert (tmp_path / "networks.damaged").read_text() == "{"


def test_links_are_named_by_the_network_or_as_it_asks() -> None:
    networks = NetworkTable(Path("/nonexistent"), "ps", {}, POOLS)
    networks.set_planned(
        [
            Network(name="own", options=(("com.docker.network.bridge.name", "psmine"),)),
            Network(name="foreign", options=(("com.docker.network.bridge.name", "eth0"),)),
        ]
    )
    assert networks.link("own") == "psmine"
    assert networks.link("foreign") == f"psb{network_id('foreign')[:12]}"  # a name of the host's own is not ours to take
    assert len(networks.link("gone")) == 15


def test_the_last_free_address_is_given_out_first() -> None:
    subnet = Subnet(cidr="10.0.0.0/29", gateway="10.0.0.6", reserved=("10.0.0.5",))
    assert addresses.free_address(subnet, {"10.0.0.4"}) == "10.0.0.3"
    with pytest.raises(AgentError, match="no free address"):
        addresses.free_address(subnet, {f"10.0.0.{i}" for i in range(8)})
    within = Subnet(cidr="10.0.0.0/24", gateway="10.0.0.1", ip_range="10.0.0.8/30")
    assert addresses.free_address(within, set()) == "10.0.0.11"
