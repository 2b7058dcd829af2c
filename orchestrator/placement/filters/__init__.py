"""Placement filters, one a file and one row in FILTERS; `base.py` says what a filter is."""

from __future__ import annotations

from typing import Any

from orchestrator.placement.filters.availability import Availability
from orchestrator.placement.filters.away import Away
from orchestrator.placement.filters.bandwidth import Bandwidth
from orchestrator.placement.filters.base import Filter
from orchestrator.placement.filters.bound import Bound
from orchestrator.placement.filters.constraint import Constraint
from orchestrator.placement.filters.cpus import Cpus
from orchestrator.placement.filters.devices import Devices
from orchestrator.placement.filters.disk import Disk
from orchestrator.placement.filters.driver import Driver
from orchestrator.placement.filters.encryption import Encryption
from orchestrator.placement.filters.extended_constraint import ExtendedConstraint
from orchestrator.placement.filters.max_per_node import MaxPerNode
from orchestrator.placement.filters.memory import Memory
from orchestrator.placement.filters.near import Near
from orchestrator.placement.filters.parent import Parent
from orchestrator.placement.filters.port import Port
from orchestrator.placement.filters.ready import Ready
from orchestrator.placement.filters.resource import Resource
from orchestrator.placement.filters.size import Size
from orchestrator.placement.filters.taint import Taint

FILTERS: tuple[Filter[Any], ...] = (
    Ready(),
    Availability(),
    Disk(),
    Constraint(),
    ExtendedConstraint(),
    Taint(),
    Bound(),
    Parent(),
    Driver(),
    Encryption(),
    Bandwidth(),
    Size(),
    Devices(),
    Cpus(),
    Memory(),
    Resource(),
    Port(),
    MaxPerNode(),
    Near(),
    Away(),
)
"""In the order in which reasons are shown."""
