"""The board of many nodes as arrays, a figure for each node: the same answers as Board's, for thousands of nodes at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from orchestrator.placement import constraints
from orchestrator.placement.board import Board, Demand
from orchestrator.placement.node import Node
from orchestrator.placement.taints import against

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Arrays(Board):
    def __init__(self, nodes: Sequence[Node], ready: Set[str]) -> None:
        super().__init__(nodes, ready)
        self.cpus = self.floats(self.cpus)
        self.memory = self.floats(self.memory)
        self._open: Mask = np.array([n.availability == "active" and n.name in ready for n in nodes], dtype=bool)
        self._static: dict[object, Mask] = {}
        self._labels: dict[str, tuple[Ints, int]] = {}

    def zeros(self) -> Ints:
        return np.zeros(len(self.nodes), dtype=np.int64)

    def floats(self, values: Iterable[float]) -> Floats:
        return np.array([*values], dtype=float)

    def static(self, demand: Demand, *, staying: bool = False) -> Mask:
        p = demand.placement
        key = (
            p.constraints, p.extended, p.tolerations, staying, demand.pinned, demand.parents, demand.drivers,
            bool(demand.encrypted), demand.devices,
        )
        if key not in self._static:
            rules = [constraints.parse(c) for c in key[0]] + [constraints.parse_extended(c) for c in key[1]]
            fit = self._open.copy()
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
        fit = self.static(demand, staying=staying).copy()
        reserves = demand.reserves
        if reserves.cpus:
            fit &= self.cpus >= reserves.cpus - 1e-9
        if reserves.memory:
            fit &= self.memory >= reserves.memory
        for kind, number in reserves.generic:
            fit &= self.free(kind) >= number
        for port in demand.ports:
            fit &= self.port(port) == 0
        if demand.placement.max_per_node:
            fit &= self.of(demand.service) < demand.placement.max_per_node
        for service in demand.near:
            fit &= self.of(service) > 0
        for service in demand.away:
            fit &= self.of(service) == 0
        return fit

    def width(self, demand: Demand) -> int:
        return int(np.count_nonzero(self.static(demand)))

    def best(self, demand: Demand, but: int = -1) -> int | None:
        fit = self.fit(demand)
        if but >= 0:
            fit[but] = False
        if not fit.any():
            return None
        return int(np.where(fit, self.cost(demand), np.iinfo(np.int64).max).argmin())

    def values(self, label: str) -> tuple[Ints, int]:
        if label not in self._labels:
            numbers, size = super().values(label)
            self._labels[label] = np.array(numbers, dtype=np.int64), size
        return self._labels[label]

    def cost(self, demand: Demand) -> Ints:
        own = self.of(demand.service)
        cost: Ints = np.minimum(own, 0xFFFF) * (1 << 20) + np.minimum(self.total, 0xFFFFF)
        shift = 36
        for label in reversed(demand.placement.spread):
            numbers, size = self.values(label)
            counts = np.bincount(numbers, weights=own, minlength=size).astype(np.int64)
            cost = cost + (np.minimum(counts[numbers], 0xFF) << shift)
            shift += 8
        return cost

    def room(self, demand: Demand) -> Ints:
        left = np.full(len(self.nodes), 1 << 40, dtype=np.int64)
        reserves = demand.reserves
        if reserves.cpus:
            left = np.minimum(left, ((self.cpus + 1e-9) // reserves.cpus).astype(np.int64))
        if reserves.memory:
            left = np.minimum(left, (self.memory // reserves.memory).astype(np.int64))
        for kind, number in reserves.generic:
            left = np.minimum(left, (self.free(kind) // number).astype(np.int64))
        if demand.ports:
            left = np.minimum(left, 1)
        if demand.placement.max_per_node:
            left = np.minimum(left, demand.placement.max_per_node - self.of(demand.service))
        return left
