"""Why a task is where it is, and why it fits nowhere: the texts of the filters."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.contract.task import Task
from agent.contract.wire import WireStruct
from orchestrator.errors import PystackError
from orchestrator.placement.colocation import colocate
from orchestrator.placement.context import PlacementContext, service_requests, table_with
from orchestrator.placement.cost import cost, score
from orchestrator.placement.feasibility import explain_nodes
from orchestrator.placement.filters.base import Reason
from orchestrator.placement.node_table import NodeTable
from orchestrator.placement.preemption import RoomMaker
from orchestrator.placement.request import PlacementRequest
from orchestrator.stackfile.model import Stack


class UnschedulableError(PystackError):
    """Tasks that no node can take, each with every node's reasons."""


class Candidate(WireStruct, frozen=True, kw_only=True):
    """A node for one task; the highest score is the first choice."""

    node: str
    feasible: bool
    score: int
    reasons: tuple[Reason, ...]


class Why(WireStruct, frozen=True, kw_only=True):
    """Every node for *task*, the best first; *node* is the present one, "" for none. *scaling* explains how many replicas its
    service has, where that follows their use, *preempted* that it had to go for another."""

    task: str
    node: str
    score: int
    candidates: tuple[Candidate, ...]
    scaling: str = ""
    preempted: str = ""


def explain(stack: Stack, service: str, task: str, tasks: Sequence[Task], context: PlacementContext) -> Why:
    """Every node with its reasons for and against *task*; if no task has that name, for one more of *service*. The other
    *tasks* are in place."""
    requests = service_requests(stack, context)
    table = table_with(context, [t for t in tasks if t.name != task], requests)
    known = next((t for t in tasks if t.name == task), None)
    related = [t for t in tasks if t.service == service or t.name == task]
    request = next(
        (r for r, members in colocate(stack, related, requests, context) if any(t.name == task for t in members)),
        requests[f"{stack.name}/{service}"],
    )
    maker = RoomMaker(stack, [t for t in tasks if t.name != task], context, table)
    candidates = sorted(_candidates(request, table, maker), key=lambda c: (not c.feasible, -c.score, c.node))
    node = known.node if known else ""
    return Why(
        task=task,
        node=node,
        candidates=tuple(candidates),
        score=next((c.score for c in candidates if c.node == node), 0),
    )


def with_reasons(why: Why, name: str, against: Sequence[str]) -> Why:
    """*why* with the sentences *against* every node, as if a filter *name* said them."""
    if not against:
        return why
    more = tuple(Reason(filter=name, ok=False, detail=text) for text in against)
    candidates = (msgspec.structs.replace(c, feasible=False, reasons=(*c.reasons, *more)) for c in why.candidates)
    return msgspec.structs.replace(why, candidates=tuple(candidates))


def _candidates(request: PlacementRequest, table: NodeTable, maker: RoomMaker) -> list[Candidate]:
    rows = zip(table.nodes, explain_nodes(request, table), cost(request, table).tolist(), table.tasks.tolist(), strict=True)
    return [
        Candidate(
            node=node.name,
            feasible=all(r.ok for r in reasons),
            score=score(total, tasks),
            reasons=(*reasons, *_room(request, table.row[node.name], reasons, maker)),
        )
        for node, reasons, total, tasks in rows
    ]


def _room(request: PlacementRequest, row: int, reasons: Sequence[Reason], maker: RoomMaker) -> list[Reason]:
    """Who would have to go, where a task of lower priority is all that is in the way."""
    if all(r.ok for r in reasons) or not (found := maker.on_row(request, row)):
        return []
    names = ", ".join(t.name for t in found.victims)
    return [Reason(filter="priority", ok=True, detail=f"at priority {request.priority} it takes the place of {names}")]


def refusal(table: NodeTable, request: PlacementRequest, name: str, where: str) -> str:
    """Why no node of *table* can take *name*, which *where* in the stack file asks for: a line for each node."""
    lines = [f"{where}: no node can take {name}:"]
    for node, reasons in zip(table.nodes, explain_nodes(request, table), strict=True):
        why = "; ".join(f"{r.filter}: {r.detail}" for r in reasons if not r.ok)
        lines.append(f"    {node.name}: {why or 'was fit, but tasks that must share a node with it did not fit'}")
    return "\n".join(lines)
