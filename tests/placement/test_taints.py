"""Taints keep off whom they say, and nobody else."""

from __future__ import annotations

import pytest

from agent.contract.status import NodeInfo
from orchestrator.placement.filters.base import Reason
from orchestrator.placement.filters.taint import Taint
from orchestrator.placement.greedy import TaskGroup, place
from orchestrator.placement.node import Node
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest
from orchestrator.placement.taints import against, kind, syntax_problem
from orchestrator.stackfile.model import Placement

CASES = {
    "nobody tolerates nothing": (["gpu:NoSchedule"], [], False, ["gpu:NoSchedule"]),
    "a key is enough": (["gpu=h100:NoSchedule"], ["gpu"], False, []),
    "a value must be the same": (["gpu=h100:NoSchedule"], ["gpu=a10"], False, ["gpu=h100:NoSchedule"]),
    "an effect must be the same": (["gpu:NoExecute"], ["gpu:NoSchedule"], False, ["gpu:NoExecute"]),
    "a star tolerates all": (["gpu:NoExecute", "old=1:NoSchedule"], ["*"], False, []),
    "who is there is not sent away by NoSchedule": (["gpu:NoSchedule"], [], True, []),
    "who is there is sent away by NoExecute": (["gpu:NoExecute"], [], True, ["gpu:NoExecute"]),
}


@pytest.mark.parametrize(("taints", "tolerations", "staying", "left"), CASES.values(), ids=CASES)
def test_against(taints: list[str], tolerations: list[str], staying: bool, left: list[str]) -> None:
    assert against(taints, tolerations, staying=staying) == left


def test_a_node_has_one_taint_of_each_key_and_effect() -> None:
    assert kind("gpu=h100:NoSchedule") == kind("gpu:NoSchedule") == ("gpu", "NoSchedule")


def test_the_problem_of_a_text_that_is_not_a_taint() -> None:
    assert syntax_problem("gpu:NoSchedule") == ""
    assert "write KEY=VALUE:NoSchedule" in syntax_problem("gpu")
    assert "'Never' is none of NoSchedule, NoExecute" in syntax_problem("gpu:Never")


def test_tasks_go_where_they_tolerate_and_the_reason_is_said() -> None:
    nodes = [
        Node(name="n0", id="0", taints=("gpu:NoSchedule",), info=NodeInfo(cpus=4)),
        Node(name="n1", id="1", info=NodeInfo(cpus=4)),
    ]
    table = NodeTable(nodes, {"n0", "n1"})
    plain, fit = PlacementRequest(service="s"), PlacementRequest(service="t", placement=Placement(tolerations=("gpu",)))
    [chosen] = place(table, [TaskGroup(plain, 3)])
    assert set(chosen) == {1}
    [chosen] = place(table, [TaskGroup(fit, 3)])
    assert 0 in chosen
    assert Taint().explain(plain, table, 0) == [Reason(filter="taint", ok=False, detail="gpu:NoSchedule")]
