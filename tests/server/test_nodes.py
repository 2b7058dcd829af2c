"""What decides about nodes and volumes without asking one: changes of a node, duplicates, names of volumes."""

from __future__ import annotations

import pytest

from agent.contract.volume import Volume
from orchestrator.errors import RefusedError
from orchestrator.placement.node import Node
from orchestrator.server.membership import NodeUpdateRequest, check_duplicate, updated
from orchestrator.server.volume_migration import find

NODE = Node(name="n1", id="1", underlay="10.0.0.1", labels=(("disk", "ssd"), ("rack", "a")), taints=("gpu:NoSchedule",))


def test_labels_and_taints_of_a_request_replace_those_of_the_same_key() -> None:
    request = NodeUpdateRequest(
        labels=(("zone", "z1"), ("rack", "b")), unset=("disk",), taints=("gpu:NoExecute", "gpu:NoSchedule")
    )
    node = updated(NODE, request)
    assert node.labels == (("rack", "b"), ("zone", "z1"))
    assert node.taints == ("gpu:NoExecute", "gpu:NoSchedule")
    assert node.availability == NODE.availability
    bare = updated(node, NodeUpdateRequest(untaint=("gpu",), availability="drain"))
    assert bare.taints == ()
    assert bare.availability == "drain"
    assert bare.labels == node.labels


def test_every_malformed_taint_is_named() -> None:
    with pytest.raises(RefusedError) as refused:
        updated(NODE, NodeUpdateRequest(taints=("gpu:Sometimes", ":NoSchedule")))
    assert "gpu:Sometimes" in str(refused.value)
    assert ":NoSchedule" in str(refused.value)


def test_names_and_addresses_are_there_once() -> None:
    check_duplicate(Node(name="n2", id="2", underlay="10.0.0.2"), [NODE])
    check_duplicate(Node(name="n2", id="2"), [Node(name="n1", id="1")])  # neither has an address yet
    with pytest.raises(RefusedError, match="a node is called n1 already"):
        check_duplicate(Node(name="n1", id="2", underlay="10.0.0.2"), [NODE])
    with pytest.raises(RefusedError, match=r"node n1 has the address 10\.0\.0\.1 already"):
        check_duplicate(Node(name="n2", id="2", underlay="10.0.0.1"), [NODE])


def test_a_volume_is_found_by_its_name_and_by_its_key_if_only_one_stack_has_it() -> None:
    volumes = {
        v.name: v
        for v in (Volume(name="web_data", key="data"), Volume(name="db_data", key="data"), Volume(name="db_log", key="log"))
    }
    assert find(volumes, "web_data").name == "web_data"
    assert find(volumes, "log").name == "db_log"
    with pytest.raises(RefusedError, match="more than one volume data; there is: db_data, db_log, web_data"):
        find(volumes, "data")
    with pytest.raises(RefusedError, match="no volume cache"):
        find(volumes, "cache")
