"""The nodes as placement sees them: what is free on each, how many tasks of what it has, and what speaks against one more.

Board says all that of one node after the other. Arrays (`orchestrator.placement.arrays`) says the same of thousands at once.
Pure but for their own counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import msgspec

from agent.manifest import DeviceRequest, Task, device_kind
from orchestrator.placement import constraints
from orchestrator.placement.node import Node
from orchestrator.placement.taints import against
from orchestrator.stackfile.model import Placement, Reserves

PortKey = tuple[int, str]
Figures = Any
"""One figure for each node: a list, or an array of numpy's."""
_NEVER = Placement()
LASTING = frozenset({"ready", "availability", "constraint", "x-placement", "taint", "bound", "parent", "driver", "encryption",
                     "devices"})
"""Filters that no placement of other tasks changes."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit asks of its node. A unit is one task, or the tasks of services that must share a node.

    *service* is `<stack>/<service>`, counted for spreading; *ports* are those that the node itself must hold;
    *pinned* names the only node that will do, "" for any; *pinned_by* is why, as in "volume db is". *parents* are the links
    that its networks are made on, *drivers* what they need besides ours: (link or driver, network); *encrypted* are networks
    that need WireGuard; *devices* must be there, and are nobody's alone."""

    service: str
    placement: Placement = _NEVER
    reserves: Reserves = Reserves()
    tasks: int = 1
    ports: frozenset[PortKey] = frozenset()
    near: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    pinned: str = ""
    pinned_by: str = ""
    parents: tuple[tuple[str, str], ...] = ()
    drivers: tuple[tuple[str, str], ...] = ()
    encrypted: tuple[str, ...] = ()
    devices: tuple[DeviceRequest, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """One filter's word on one node."""

    filter: str
    ok: bool
    detail: str


class Board:
    def __init__(self, nodes: Sequence[Node], ready: Set[str]) -> None:
        self.nodes = tuple(nodes)
        self.ready = ready
        self.at = {n.name: i for i, n in enumerate(nodes)}
        self.cpus: Figures = [n.facts.cpus for n in nodes]
        self.memory: Figures = [n.facts.memory for n in nodes]
        self.total: Figures = self.zeros()
        self._free: dict[str, Figures] = {}
        self._of: dict[str, Figures] = {}
        self._ports: dict[PortKey, Figures] = {}

    def zeros(self) -> Figures:
        """A counter for each node."""
        return [0] * len(self.nodes)

    def of(self, service: str) -> Figures:
        """How many tasks of *service* each node has."""
        if service not in self._of:
            self._of[service] = self.zeros()
        return self._of[service]

    def put(self, demand: Demand, node: int, count: int = 1) -> None:
        """Take *count* units of *demand* into account on *node*; -1 takes one back."""
        self.cpus[node] -= demand.reserves.cpus * count
        self.memory[node] -= demand.reserves.memory * count
        self.total[node] += demand.tasks * count
        self.of(demand.service)[node] += count
        for kind, number in demand.reserves.generic:
            self.free(kind)[node] -= number * count
        for port in demand.ports:
            self.port(port)[node] = int(count > 0)

    def free(self, kind: str) -> Figures:
        """How many things of *kind* each node has free; nodes declare them as the label `resource.<kind>`."""
        if kind not in self._free:
            labels = [dict(n.labels).get(f"resource.{kind}", "0") for n in self.nodes]
            self._free[kind] = self.floats(float(v) if v.isdigit() else 0.0 for v in labels)
        return self._free[kind]

    def floats(self, values: Iterable[float]) -> Figures:
        return list(values)

    def port(self, key: PortKey) -> Figures:
        """1 where the node has given that port away."""
        if key not in self._ports:
            self._ports[key] = self.zeros()
        return self._ports[key]

    def static(self, demand: Demand, *, staying: bool = False) -> Figures:
        """Nodes that no placement of others can make unfit: they take tasks, and the constraints hold there. *staying* asks for
        a task that is there already, which some taints leave alone."""
        return [
            all(v.ok for v in self.verdicts(demand, node, staying=staying) if v.filter in LASTING)
            for node in range(len(self.nodes))
        ]

    def fit(self, demand: Demand, *, staying: bool = False) -> Figures:
        """Nodes that can take one more unit of *demand* now, or, where it is *staying*, keep one."""
        return [all(v.ok for v in self.verdicts(demand, node, staying=staying)) for node in range(len(self.nodes))]

    def width(self, demand: Demand) -> int:
        """How many nodes no placement of others can make unfit."""
        return sum(self.static(demand))

    def best(self, demand: Demand, but: int = -1) -> int | None:
        """The cheapest node that can take one more, other than *but*; the first of equal ones."""
        cost, fit = self.cost(demand), self.fit(demand)
        return min((n for n, ok in enumerate(fit) if ok and n != but), key=lambda n: cost[n], default=None)

    def values(self, label: str) -> tuple[Figures, int]:
        """Each node's value of *label* as a number, and how many values there are."""
        words = [constraints.value_of(label, n) or "" for n in self.nodes]
        numbers = {word: i for i, word in enumerate(sorted(set(words)))}
        return [numbers[w] for w in words], len(numbers)

    def cost(self, demand: Demand) -> Figures:
        """Lower is better: fewest of the service in each label value (outermost first), then on the node, then fewest
        tasks at all."""
        own = self.of(demand.service)
        cost = [min(mine, 0xFFFF) * (1 << 20) + min(all_, 0xFFFFF) for mine, all_ in zip(own, self.total, strict=True)]
        shift = 36
        for label in reversed(demand.placement.spread):
            numbers, size = self.values(label)
            counts = [0] * size
            for number, mine in zip(numbers, own, strict=True):
                counts[number] += mine
            cost = [one + (min(counts[number], 0xFF) << shift) for one, number in zip(cost, numbers, strict=True)]
            shift += 8
        return cost

    def room(self, demand: Demand) -> Figures:
        """How many more copies of *demand* each node can take, for what it has free."""
        reserves, limit = demand.reserves, demand.placement.max_per_node
        out = []
        for node in range(len(self.nodes)):
            left = [1 << 40, *([1] if demand.ports else []), *([limit - self.of(demand.service)[node]] if limit else [])]
            if reserves.cpus:
                left.append(int((self.cpus[node] + 1e-9) // reserves.cpus))
            if reserves.memory:
                left.append(int(self.memory[node] // reserves.memory))
            left += [int(self.free(kind)[node] // number) for kind, number in reserves.generic]
            out.append(min(left))
        return out

    def verdicts(self, demand: Demand, node: int, *, staying: bool = False) -> list[Verdict]:
        """Every filter's word on *node*, in words; for a task that is *staying* there, or for one more."""
        one = self.nodes[node]
        out = [
            Verdict("ready", one.name in self.ready, "answers" if one.name in self.ready else "does not answer"),
            Verdict("availability", one.availability == "active", f"is {one.availability}"),
        ]
        for kind, texts, read in (("constraint", demand.placement.constraints, constraints.parse),
                                  ("x-placement", demand.placement.extended, constraints.parse_extended)):
            for text in texts:
                rule = read(text)
                has = one.underlay if rule.key.lower() == "node.ip" else constraints.value_of(rule.key, one)
                out.append(Verdict(kind, constraints.matches(rule, one), f"{text} (it has {has or 'none'})"))
        if one.taints:
            left = against(one.taints, demand.placement.tolerations, staying=staying)
            out.append(Verdict("taint", not left, ", ".join(left) if left else f"tolerates {', '.join(one.taints)}"))
        if demand.pinned:
            out.append(Verdict("bound", one.name == demand.pinned, f"{demand.pinned_by} on {demand.pinned}"))
        for parent, network in demand.parents:
            there = one.facts.offers(parent)
            has = "" if there else f"; it has {', '.join(one.facts.links) or 'no link'}"
            if not there and "." in parent and "vlan" not in one.facts.features:
                has += ", and a kernel without VLANs (CONFIG_VLAN_8021Q)"
            out.append(Verdict("parent", there, f"network {network} is on {parent}{has}"))
        for driver, network in demand.drivers:
            out.append(Verdict("driver", driver in one.facts.drivers, f"network {network} needs the driver {driver}"))
        for network in demand.encrypted:
            there = "wireguard" in one.facts.features
            has = "" if there else ": it is neither in the kernel nor is wireguard-go installed"
            out.append(Verdict("encryption", there, f"network {network} needs WireGuard{has}"))
        for request in demand.devices:
            chosen = request.choose(one.facts.devices)
            kinds = sorted({device_kind(d) for d in one.facts.devices})
            has = f"has {', '.join(chosen)}" if chosen else f"has {', '.join(kinds) or 'none'}"
            out.append(Verdict("devices", chosen is not None, f"asks for {request}; it {has} (CDI files in /etc/cdi)"))
        reserves = demand.reserves
        if reserves.cpus:
            out.append(Verdict("cpus", bool(self.cpus[node] >= reserves.cpus - 1e-9),
                               f"asks {reserves.cpus:g}, {self.cpus[node]:g} of {one.facts.cpus:g} free"))
        if reserves.memory:
            out.append(Verdict("memory", bool(self.memory[node] >= reserves.memory),
                               f"asks {_size(reserves.memory)}, {_size(self.memory[node])} of {_size(one.facts.memory)} free"))
        for kind, number in reserves.generic:
            free = self.free(kind)[node]
            out.append(Verdict("resource", bool(free >= number), f"asks {number} {kind}, {free:g} free"))
        for port in sorted(demand.ports):
            taken = bool(self.port(port)[node])
            out.append(Verdict("port", not taken, f"{port[0]}/{port[1]} is {'taken' if taken else 'free'}"))
        if demand.placement.max_per_node:
            has_now = int(self.of(demand.service)[node])
            limit = demand.placement.max_per_node
            out.append(Verdict("max_replicas_per_node", has_now < limit, f"has {has_now} of at most {limit}"))
        for service in demand.near:
            there = bool(self.of(service)[node] > 0)
            out.append(Verdict("near", there, f"{service.split('/')[-1]} is {'' if there else 'not '}there"))
        for service in demand.away:
            there = bool(self.of(service)[node] > 0)
            out.append(Verdict("away", not there, f"{service.split('/')[-1]} is {'' if there else 'not '}there"))
        return out


def board_of(nodes: Sequence[Node], ready: Set[str]) -> Board:
    """Of many nodes as arrays. numpy is 12 MB that a host which is alone need not have."""
    if len(nodes) < 2:
        return Board(nodes, ready)
    from orchestrator.placement.arrays import Arrays

    return Arrays(nodes, ready)


def _size(number: float) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if number >= 1 << shift:
            return f"{number / (1 << shift):.1f} {unit}"
    return f"{number:.0f} B"


def demand_of_others(board: Board, tasks: Iterable[Task], demands: Mapping[str, Demand]) -> None:
    """Take into account tasks that stay where they are; *demands* by `<stack>/<service>` where it is known."""
    for task in tasks:
        if task.node in board.at:
            key = f"{task.stack}/{task.service}"
            board.put(demands.get(key) or Demand(service=key), board.at[task.node])
