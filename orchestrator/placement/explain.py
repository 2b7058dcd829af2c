"""Why a task is where it is, and why it can go nowhere: the filters' own findings, in words."""

from __future__ import annotations

from collections.abc import Sequence

from agent.manifest import Record, Task
from orchestrator.errors import PystackError
from orchestrator.placement.colocation import colocate
from orchestrator.placement.context import PlacementContext, service_requests, table_with
from orchestrator.placement.cost import cost, score
from orchestrator.placement.feasibility import explain_node
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.request import PlacementRequest
from orchestrator.stackfile.model import Stack


class UnschedulableError(PystackError):
    """Tasks that no node can take, each with every node's reasons."""


class Reason(Record, frozen=True, kw_only=True):
    """One finding of a filter on one node."""

    filter: str
    ok: bool
    detail: str


class Candidate(Record, frozen=True, kw_only=True):
    """A node, as one task sees it; the highest score is the first choice."""

    node: str
    feasible: bool
    score: int
    reasons: tuple[Reason, ...]


class Why(Record, frozen=True, kw_only=True):
    """Every node as *task* sees it, the best first; *node* is where it is, "" for nowhere."""

    task: str
    node: str
    score: int
    candidates: tuple[Candidate, ...]


def explain(stack: Stack, service: str, task: str, tasks: Sequence[Task], context: PlacementContext) -> Why:
    """Every node's findings on *task*, or on one more of *service* where there is no such task; the other *tasks* in place."""
    requests = service_requests(stack, context)
    table = table_with(context, [t for t in tasks if t.name != task], requests)
    known = next((t for t in tasks if t.name == task), None)
    related = [t for t in tasks if t.service == service or t.name == task]
    request = next(
        (r for r, members in colocate(stack, related, requests, context) if any(t.name == task for t in members)),
        requests[f"{stack.name}/{service}"],
    )
    candidates = sorted(_candidates(request, table), key=lambda c: (not c.feasible, -c.score, c.node))
    node = known.node if known else ""
    return Why(
        task=task,
        node=node,
        candidates=tuple(candidates),
        score=next((c.score for c in candidates if c.node == node), 0),
    )


def _candidates(request: PlacementRequest, table: NodeTable) -> list[Candidate]:
    costs, out = cost(request, table), []
    for row, node in enumerate(table.nodes):
        found = explain_node(request, table, row)
        out.append(
            Candidate(
                node=node.name,
                feasible=all(f.ok for f in found),
                score=score(int(costs[row]), int(table.tasks[row])),
                reasons=tuple(Reason(filter=f.filter, ok=f.ok, detail=f.detail) for f in found),
            )
        )
    return out


def refusal(table: NodeTable, request: PlacementRequest, name: str, where: str) -> str:
    """Why no node of *table* can take *name*, which *where* in the stack file asks for: a line for each node."""
    lines = [f"{where}: no node can take {name}:"]
    for row, node in enumerate(table.nodes):
        why = "; ".join(f"{f.filter}: {f.detail}" for f in explain_node(request, table, row) if not f.ok)
        lines.append(f"    {node.name}: {why or 'was fit, but others that must share a node with it were not'}")
    return "\n".join(lines)
