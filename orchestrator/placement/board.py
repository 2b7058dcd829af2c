"""The nodes as arrays: what is free on each, and how many tasks of what it has. Pure but for its own counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.manifest import DeviceRequest, Task, device_kind
from orchestrator.placement import constraints
from orchestrator.placement.node import Node
from orchestrator.placement.taints import against
from orchestrator.stackfile.model import Placement, Reserves

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PortKey = tuple[int, str]
_NEVER = Placement()


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit asks of its node. A unit is one task, or the tasks of services that must share a node.

    *service* is `<stack>/<service>`, counted for spreading; *ports* are those that the node itself must hold;
    *pinned* maps nodes to nothing but a reason: where it is not empty, only its nodes will do. *parents* are the links
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
        size = len(nodes)
        self.open: Mask = np.array([n.availability == "active" and n.name in ready for n in nodes], dtype=bool)
        self.cpus: Floats = np.array([n.facts.cpus for n in nodes], dtype=float)
        self.memory: Floats = np.array([n.facts.memory for n in nodes], dtype=float)
        self.total: Ints = np.zeros(size, dtype=np.int64)
        self.generic: dict[str, Floats] = {}
        self._of: dict[str, Ints] = {}
        self._ports: dict[PortKey, Mask] = {}
        self._static: dict[object, Mask] = {}
        self._labels: dict[str, tuple[Ints, int]] = {}

    def of(self, service: str) -> Ints:
        """How many tasks of *service* each node has."""
        if service not in self._of:
            self._of[service] = np.zeros(len(self.nodes), dtype=np.int64)
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
            self._port(port)[node] = count > 0

    def free(self, kind: str) -> Floats:
        """How many things of *kind* each node has free; nodes declare them as the label `resource.<kind>`."""
        if kind not in self.generic:
            labels = [dict(n.labels).get(f"resource.{kind}", "0") for n in self.nodes]
            self.generic[kind] = np.array([float(v) if v.isdigit() else 0.0 for v in labels])
        return self.generic[kind]

    def _port(self, key: PortKey) -> Mask:
        if key not in self._ports:
            self._ports[key] = np.zeros(len(self.nodes), dtype=bool)
        return self._ports[key]

    def holds(self, port: PortKey, node: int) -> bool:
        return bool(self._port(port)[node])

    def static(self, demand: Demand, *, staying: bool = False) -> Mask:
        """Nodes that no placement of others can make unfit: they take tasks, and the constraints hold there. *staying* asks for
        a task that is there already, which some taints leave alone."""
        p = demand.placement
        key = (
            p.constraints, p.extended, p.tolerations, staying, demand.pinned, demand.parents, demand.drivers,
            bool(demand.encrypted), demand.devices,
        )
        if key not in self._static:
            rules = [constraints.parse(c) for c in key[0]] + [constraints.parse_extended(c) for c in key[1]]
            fit = self.open.copy()
            for rule in rules:
                fit &= np.array([constraints.matches(rule, n) for n in self.nodes], dtype=bool)
            if demand.pinned:
                only = np.zeros_like(fit)
                if demand.pinned in self.at:
                    only[self.at[demand.pinned]] = True
                fit &= only
            for parent, _ in demand.parents:
                fit &= np.array([n.facts.offers(parent) for n in self.nodes], dtype=bool)
            for driver, _ in demand.drivers:
                fit &= np.array([driver in n.facts.drivers for n in self.nodes], dtype=bool)
            if demand.encrypted:
                fit &= np.array(["wireguard" in n.facts.features for n in self.nodes], dtype=bool)
            for request in demand.devices:
                fit &= np.array([request.choose(n.facts.devices) is not None for n in self.nodes], dtype=bool)
            if any(n.taints for n in self.nodes):
                fit &= np.array([not against(n.taints, p.tolerations, staying=staying) for n in self.nodes], dtype=bool)
            self._static[key] = fit
        return self._static[key]

    def fit(self, demand: Demand, *, staying: bool = False) -> Mask:
        """Nodes that can take one more unit of *demand* now, or, where it is *staying*, keep one."""
        fit = self.static(demand, staying=staying).copy()
        reserves = demand.reserves
        if reserves.cpus:
            fit &= self.cpus >= reserves.cpus - 1e-9
        if reserves.memory:
            fit &= self.memory >= reserves.memory
        for kind, number in reserves.generic:
            fit &= self.free(kind) >= number
        for port in demand.ports:
            fit &= ~self._port(port)
        if demand.placement.max_per_node:
            fit &= self.of(demand.service) < demand.placement.max_per_node
        for service in demand.near:
            fit &= self.of(service) > 0
        for service in demand.away:
            fit &= self.of(service) == 0
        return fit

    def values(self, label: str) -> tuple[Ints, int]:
        """Each node's value of *label* as a number, and how many values there are."""
        if label not in self._labels:
            words = [constraints.value_of(label, n) or "" for n in self.nodes]
            numbers = {word: i for i, word in enumerate(sorted(set(words)))}
            self._labels[label] = np.array([numbers[w] for w in words], dtype=np.int64), len(numbers)
        return self._labels[label]

    def cost(self, demand: Demand) -> Ints:
        """Lower is better: fewest of the service in each label value (outermost first), then on the node, then fewest
        tasks at all."""
        own = self.of(demand.service)
        cost = np.minimum(own, 0xFFFF) * (1 << 20) + np.minimum(self.total, 0xFFFFF)
        shift = 36
        for label in reversed(demand.placement.spread):
            numbers, size = self.values(label)
            counts = np.bincount(numbers, weights=own, minlength=size).astype(np.int64)
            cost = cost + (np.minimum(counts[numbers], 0xFF) << shift)
            shift += 8
        return cost

    def verdicts(self, demand: Demand, node: int) -> list[Verdict]:
        """Every filter's word on *node*, in words."""
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
            left = against(one.taints, demand.placement.tolerations)
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
            taken = bool(self._port(port)[node])
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
