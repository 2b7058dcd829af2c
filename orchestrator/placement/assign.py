"""Which node each task of a stack goes to. Tasks that are placed stay, unless their node is no longer fit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set

import msgspec

from agent.manifest import Record, Task
from orchestrator.errors import PystackError
from orchestrator.placement.board import Board, Demand, board_of, demand_of_others
from orchestrator.placement.node import Node
from orchestrator.placement.rebalance import Placed
from orchestrator.placement.solve import Unit, place
from orchestrator.stackfile.model import DRIVERS, Placement, Reserves, Service, Stack

EVERYWHERE = ("/var/run", "/run", "/proc", "/sys", "/dev", "/etc/localtime", "/etc/timezone", "/lib/modules", "/var/log")
"""Binds of these mean the node's own, whichever node it is; any other path is taken for the server's host's."""


class Reason(Record, frozen=True, kw_only=True):
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
    task: str
    node: str
    score: int
    candidates: tuple[Candidate, ...]


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """All that placement looks at besides the stack: *others* are tasks of other stacks with their *demands* by
    `<stack>/<service>`, *homes* the volumes that have a node, *local* the server's own node, *wishes* tasks that shall
    move, and where to."""

    nodes: Sequence[Node]
    ready: Set[str]
    local: str
    others: Sequence[Task] = ()
    demands: Mapping[str, Demand] = {}
    homes: Mapping[str, str] = {}
    wishes: Mapping[str, str] = {}


class ImpossibleError(PystackError):
    """Tasks that no node can take, each with every node's reasons."""


def demands(stack: Stack, ground: Ground) -> dict[str, Demand]:
    """Each service's demand, for one replica, by `<stack>/<service>`."""
    return {f"{stack.name}/{s.name}": _demand(stack, s, ground) for s in stack.services}


def _demand(stack: Stack, service: Service, ground: Ground) -> Demand:
    pinned, by = "", ""
    for mount in service.container.mounts:
        if mount.kind == "volume" and mount.source in ground.homes and service.mode not in ("global", "global-job"):
            pinned, by = ground.homes[mount.source], f"volume {mount.source} is"
        elif mount.kind == "bind" and not mount.source.startswith(EVERYWHERE) and len(ground.nodes) > 1 and not pinned:
            pinned, by = ground.local, f"bind mount {mount.source} is"
    ports = frozenset((p.published, p.protocol) for p in service.container.ports if p.published and p.mode == "host")
    p = service.placement
    used = {a.network for a in service.container.attachments}
    networks = [n for n in stack.networks if n.name in used]
    return Demand(
        service=f"{stack.name}/{service.name}", placement=p, reserves=service.reserves, ports=ports,
        near=tuple(f"{stack.name}/{n}" for n in p.near), away=tuple(f"{stack.name}/{n}" for n in p.away),
        pinned=pinned, pinned_by=by,
        parents=tuple((n.parent, n.name) for n in networks if n.parent),
        drivers=tuple((n.driver, n.name) for n in networks if n.driver and n.driver not in DRIVERS),
        devices=service.container.device_requests,
        # on a node that is alone nothing leaves the host
        encrypted=tuple(n.name for n in networks if n.encrypted) if len(ground.nodes) > 1 else (),
    )


def eligible(stack: Stack, service: Service, ground: Ground) -> list[str]:
    """The nodes that a service of mode global has a task on; none while all that would do are down or drained.

    Raises ImpossibleError where no node would do even then."""
    demand = _demand(stack, service, ground)
    fit = board_of(ground.nodes, ground.ready).static(demand)
    if not any(fit):
        nodes = [msgspec.structs.replace(n, availability="active") for n in ground.nodes]
        best = board_of(nodes, {n.name for n in nodes})
        if not best.width(demand):
            raise ImpossibleError(_refusal(best, demand, f"service {service.name}", service.where))
    return [n.name for n, ok in zip(ground.nodes, fit, strict=True) if ok]


def assign(stack: Stack, tasks: Sequence[Task], current: Sequence[Task], ground: Ground) -> list[Task]:
    """*tasks* with their nodes. Raises ImpossibleError with every reason, where one cannot be placed."""
    own = demands(stack, ground)
    board = _board(ground, [t for t in tasks if t.node], own)  # of mode global: its node is part of what it is
    where = {t.name: ground.wishes.get(t.name, t.node) for t in current}
    chosen = {t.name: t.node for t in tasks if t.node}
    units = _units(stack, [t for t in tasks if not t.node], own, ground)
    open_units: list[tuple[Demand, list[Task]]] = []
    for demand, members in units:
        homes = {where[t.name] for t in members if t.name in where}
        home = homes.pop() if len(homes) == 1 else ""
        if home in board.at and _stays(board, demand, board.at[home]):
            board.put(demand, board.at[home])
            chosen |= dict.fromkeys((t.name for t in members), home)
        else:
            open_units.append((demand, members))
    grouped, wishes = _grouped(open_units)
    impossible: list[tuple[Demand, Task]] = []
    for wish, copies, nodes in zip(wishes, grouped.values(), place(board, wishes), strict=True):
        for number, members in enumerate(copies):
            if number < len(nodes):
                chosen |= dict.fromkeys((t.name for t in members), board.nodes[nodes[number]].name)
            else:
                impossible.append((wish.demand, members[0]))
    if impossible:
        chosen |= _exactly(stack, tasks, units, where, ground, own, lambda: "\n".join(
            _refusal(board, demand, task.name, task.where) for demand, task in impossible
        ))
    return [msgspec.structs.replace(t, node=chosen[t.name]) for t in tasks]


def reassign(stack: Stack, tasks: Sequence[Task], ground: Ground, lost: Set[str]) -> dict[str, str]:
    """Nodes for those of *tasks* that are named in *lost*, the others staying where they are; who fits nowhere has none."""
    own = demands(stack, ground)
    board = _board(ground, [t for t in tasks if t.name not in lost], own)
    grouped, wishes = _grouped(_units(stack, [t for t in tasks if t.name in lost], own, ground))
    out: dict[str, str] = {}
    for copies, nodes in zip(grouped.values(), place(board, wishes), strict=True):
        for members, node in zip(copies, nodes, strict=False):
            out |= dict.fromkeys((t.name for t in members), board.nodes[node].name)
    return out


def _board(ground: Ground, tasks: Sequence[Task], own: Mapping[str, Demand]) -> Board:
    """The nodes with what other stacks have there, and with *tasks* of this one."""
    board = board_of(ground.nodes, ground.ready)
    demand_of_others(board, ground.others, ground.demands)
    demand_of_others(board, tasks, own)
    return board


def _grouped(units: Sequence[tuple[Demand, list[Task]]]) -> tuple[dict[Demand, list[list[Task]]], list[Unit]]:
    """Units that ask for the same, by what they ask; and the same as the solvers want it."""
    grouped: dict[Demand, list[list[Task]]] = {}
    for demand, members in units:
        grouped.setdefault(demand, []).append(members)
    return grouped, [Unit(demand, len(copies)) for demand, copies in grouped.items()]


def _exactly(
    stack: Stack, tasks: Sequence[Task], units: Sequence[tuple[Demand, list[Task]]], where: Mapping[str, str],
    ground: Ground, own: Mapping[str, Demand], refusal: Callable[[], str],
) -> dict[str, str]:
    """All of the stack placed anew by the exact solver, moving as little as it can. Raises ImpossibleError."""
    proven = "proven: no placement of the whole stack exists"
    if len(ground.nodes) < 2:
        raise ImpossibleError(f"{refusal()}\n    ({proven})")
    from orchestrator.placement.exact import NoSolverError, UndecidedError, solve

    board = _board(ground, [t for t in tasks if t.node], own)
    grouped, wishes = _grouped(units)
    homes = [
        [board.at[where[m[0].name]] for m in copies if where.get(m[0].name) in board.at] for copies in grouped.values()
    ]
    try:
        found = solve(board, wishes, homes)
    except (NoSolverError, UndecidedError) as error:
        raise ImpossibleError(f"{refusal()}\n    ({error})") from None
    if found is None:
        raise ImpossibleError(f"{refusal()}\n    ({proven})")
    out: dict[str, str] = {}
    for copies, nodes in zip(grouped.values(), found, strict=True):
        free = [board.nodes[n].name for n in nodes]
        waiting = []
        for members in copies:  # those that can stay do, the rest takes what is left
            home = where.get(members[0].name, "")
            if home in free:
                free.remove(home)
                out |= dict.fromkeys((t.name for t in members), home)
            else:
                waiting.append(members)
        for members, node in zip(waiting, free, strict=True):
            out |= dict.fromkeys((t.name for t in members), node)
    return out


def _stays(board: Board, demand: Demand, node: int) -> bool:
    """A task that is there stays on a node that takes no new ones; not on one that is drained or does not fit."""
    one = board.nodes[node]
    if one.availability == "pause" and one.name in board.ready:
        return True
    return bool(board.fit(demand, staying=True)[node])


def _units(stack: Stack, tasks: Sequence[Task], own: Mapping[str, Demand], ground: Ground) -> list[tuple[Demand, list[Task]]]:
    """Tasks that must share a node, as one unit with what all of them ask for; on a node that is alone they do anyway."""
    if len(ground.nodes) < 2:
        return [(own[f"{stack.name}/{t.service}"], [t]) for t in tasks]
    # not at the top: 13 MB and 0.1 s that a host which is alone never needs
    import networkx as nx

    graph: nx.Graph[str] = nx.Graph()
    by_name = {s.name: s for s in stack.services}
    graph.add_nodes_from(by_name)
    sharing: dict[str, str] = {}
    volumes = {v.name for v in stack.volumes if not v.shared}
    bound: set[str] = set()
    one_host = {n.name for n in stack.networks if n.one_host}
    for service in stack.services:
        shared = _shares_with(service)
        for other in shared & by_name.keys():
            graph.add_edge(service.name, other)
        for attachment in service.container.attachments:
            if attachment.network in one_host:
                graph.add_edge(service.name, sharing.setdefault(f"network {attachment.network}", service.name))
                bound.add(service.name)
        for mount in service.container.mounts:
            if mount.kind == "volume" and mount.source in volumes:
                first = sharing.setdefault(mount.source, service.name)
                graph.add_edge(service.name, first)
                bound.add(service.name)
    out: list[tuple[Demand, list[Task]]] = []
    of: dict[str, list[Task]] = {}
    for task in tasks:
        of.setdefault(task.service, []).append(task)
    for component in nx.connected_components(graph):
        names = [s.name for s in stack.services if s.name in component]
        members = [t for n in names for t in of.get(n, ())]
        if len(names) == 1 and names[0] not in bound:
            out += [(own[f"{stack.name}/{names[0]}"], [t]) for t in members]
        elif members:
            out.append((_together([own[f"{stack.name}/{t.service}"] for t in members]), members))
    return out


def _shares_with(service: Service) -> set[str]:
    """The services whose host it must be on: it has their namespaces or mounts, or links to them."""
    c = service.container
    donors = {v.split(":")[0] for v in c.volumes_from if not v.startswith("container:")}
    spaces = {m[8:] for m in (c.network_mode, c.pid_mode, c.ipc_mode) if m.startswith("service:")}
    return donors | {target for _, target in c.links} | spaces


def _together(parts: Sequence[Demand]) -> Demand:
    generic: dict[str, int] = {}
    for part in parts:
        for kind, number in part.reserves.generic:
            generic[kind] = generic.get(kind, 0) + number
    first = next((p for p in parts if p.pinned), parts[0])

    def joined(values: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(v for value in values for v in value))

    services = {p.service for p in parts}
    return Demand(
        service=parts[0].service, tasks=len(parts), ports=frozenset().union(*(p.ports for p in parts)),
        placement=Placement(
            constraints=joined(p.placement.constraints for p in parts),
            extended=joined(p.placement.extended for p in parts), spread=joined(p.placement.spread for p in parts),
        ),
        reserves=Reserves(cpus=sum(p.reserves.cpus for p in parts), memory=sum(p.reserves.memory for p in parts),
                          generic=tuple(sorted(generic.items()))),
        near=tuple(n for n in joined(p.near for p in parts) if n not in services), away=joined(p.away for p in parts),
        pinned=first.pinned, pinned_by=first.pinned_by,
        parents=tuple(dict.fromkeys(x for p in parts for x in p.parents)),
        drivers=tuple(dict.fromkeys(x for p in parts for x in p.drivers)), encrypted=joined(p.encrypted for p in parts),
        devices=tuple(dict.fromkeys(x for p in parts for x in p.devices)),
    )


def _refusal(board: Board, demand: Demand, name: str, where: str) -> str:
    lines = [f"{where}: no node can take {name}:"]
    for number, node in enumerate(board.nodes):
        why = "; ".join(f"{v.filter}: {v.detail}" for v in board.verdicts(demand, number) if not v.ok)
        lines.append(f"    {node.name}: {why or 'was fit, but others that must share a node with it were not'}")
    return "\n".join(lines)


def placed_units(stack: Stack, tasks: Sequence[Task], ground: Ground) -> list[Placed]:
    """*tasks* as they share nodes now; those of mode global and those run by hand are where they must be."""
    fixed = {s.name for s in stack.services if s.mode in ("global", "global-job")}
    mine = [t for t in tasks if t.desired != "guest" and t.service not in fixed]
    return [
        Placed(demand, tuple(t.name for t in members), members[0].node, stack.name)
        for demand, members in _units(stack, mine, demands(stack, ground), ground)
    ]


def place_guest(stack: Stack, guest: Task, tasks: Sequence[Task], ground: Ground) -> Task:
    """*guest* on the node that a further task of its service would get. Raises ImpossibleError."""
    own = demands(stack, ground)
    board = _board(ground, tasks, own)
    demand = msgspec.structs.replace(own[f"{stack.name}/{guest.service}"], ports=frozenset())
    [nodes] = place(board, [Unit(demand, 1)])
    if not nodes:
        raise ImpossibleError(_refusal(board, demand, guest.name, guest.where))
    return msgspec.structs.replace(guest, node=board.nodes[nodes[0]].name)


def explain(stack: Stack, service: str, task: str, tasks: Sequence[Task], ground: Ground) -> Why:
    """Every node's verdict on *service*, with all of *tasks* but *task* in place."""
    own = demands(stack, ground)
    board = _board(ground, [t for t in tasks if t.name != task], own)
    one = next((t for t in tasks if t.name == task), None)
    unit = next((d for d, members in _units(stack, [t for t in tasks if t.service == service or t.name == task], own, ground)
                 if any(t.name == task for t in members)), own[f"{stack.name}/{service}"])
    cost = board.cost(unit)
    candidates = []
    for number, node in enumerate(board.nodes):
        words = board.verdicts(unit, number)
        candidates.append(Candidate(
            node=node.name, feasible=all(w.ok for w in words), score=-int(cost[number] >> 20) * 1000 - int(board.total[number]),
            reasons=tuple(Reason(filter=w.filter, ok=w.ok, detail=w.detail) for w in words),
        ))
    candidates.sort(key=lambda c: (not c.feasible, -c.score, c.node))
    node_name = one.node if one else ""
    return Why(
        task=task, node=node_name, candidates=tuple(candidates),
        score=next((c.score for c in candidates if c.node == node_name), 0),
    )
