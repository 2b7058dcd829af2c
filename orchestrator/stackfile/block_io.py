"""`blkio_config:` of a service: limits of disk I/O, by device, by volume or by a path inside."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.contract.container import Container, DeviceRate
from orchestrator.stackfile.field_readers import Fields, ServiceContext, integer, scalar, size
from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.marked_document import Path_

_RATES = {
    "device_read_bps": "read_bps",
    "device_write_bps": "write_bps",
    "device_read_iops": "read_iops",
    "device_write_iops": "write_iops",
}


def blkio_config(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.blkio_config; rates are in bytes or operations per second."""
    body = draft.reading.mapping(value, path)
    fields: Fields = integer("blkio_weight", 0)(draft, body["weight"], (*path, "weight")) if "weight" in body else {}
    if not 10 <= fields.get("blkio_weight", 10) <= 1000:
        draft.keep_from_starting((*path, "weight"), "must be from 10 to 1000")
    rates = []
    for key, what in {"weight_device": "weight", **_RATES}.items():
        for number, item in enumerate(draft.reading.sequence(body.get(key), (*path, key))):
            at = (*path, key, number)
            entry = draft.reading.mapping(item, at)
            amount = "weight" if what == "weight" else "rate"
            if not entry.get("path") or amount not in entry:
                draft.keep_from_starting(at, f"needs path and {amount}")
                continue
            read = size("rate") if what.endswith("bps") else integer("rate", 1)
            found = read(draft, entry[amount], (*at, amount))
            if "rate" in found:
                rates.append(DeviceRate(what=what, path=scalar(entry["path"]), rate=found["rate"]))
    return {**fields, "blkio": tuple(rates)}


def by_mount(reading: LoadContext, service: str, container: Container) -> tuple[DeviceRate, ...]:
    """The limits of *container*, those of a volume by the path at which *service* mounts it. What it does not mount is a
    problem."""
    targets = {m.source: m.target for m in reversed(container.mounts) if m.kind == "volume"}
    out = []
    for one in container.blkio:
        if not one.path.startswith("/") and one.path not in targets:
            at = _place(reading, service, one.path)
            there = ", ".join(sorted(filter(None, targets))) or "none"
            reading.check(at, f"{one.path!r} is neither a path nor a volume of this service", f"its volumes: {there}")
        out.append(msgspec.structs.replace(one, path=targets.get(one.path, one.path)))
    return tuple(out)


def _place(reading: LoadContext, service: str, name: str) -> Path_:
    """Where *name* stands."""
    above: Path_ = ("services", service, "blkio_config")
    for key, entries in reading.tree.value["services"][service]["blkio_config"].items():
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, dict) and scalar(entry.get("path")) == name:
                return (*above, key, number, "path")
    return above
