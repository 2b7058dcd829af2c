"""Replicas with names, addresses and volumes of their own (`x-stable`)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.contract.swarm_placeholder import names_swarm
from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.model import Service, StackVolume, UpdateConfig

SLOT = "{{.Task.Slot}}"


def with_own_volumes(reading: LoadContext, services: dict[str, Service], volumes: dict[str, StackVolume]) -> None:
    """Give each replica of stable services its hostname and a volume of each of theirs that lives on one node: volume `data`
    becomes `data-1`, `data-2` and so on. Changes both mappings."""
    for name, one in services.items():
        if not one.stable:
            continue
        path: Path_ = ("services", name, "x-stable")
        for key in {m.source for m in one.container.mounts if m.kind == "volume" and m.source in volumes}:
            volume = volumes[key]
            others = _others(services, name, key)
            if volume.external or volume.shared or names_swarm(volume.name):
                continue
            if others:
                reading.check(
                    path, f"volume {key} is one for each replica, and {others[0]} has it too", "give them two volumes"
                )
                continue
            volumes[key] = msgspec.structs.replace(volume, name=f"{volume.name}-{SLOT}")
        if one.update and one.update.order == "start-first":
            reading.check(path, "two replicas cannot have one volume and one name", "update_config: {order: stop-first}")
        for beside in ("x-scale", "x-update", "x-schedule"):
            if beside in ((reading.tree.value.get("services") or {}).get(name) or {}):
                reading.check(path, f"its replicas have names of their own, which {beside} cannot give", f"leave {beside} out")
        container = one.container
        if not container.hostname and not container.network_mode:
            container = msgspec.structs.replace(container, hostname=f"{name}-{SLOT}")
        services[name] = msgspec.structs.replace(one, container=container, update=one.update or UpdateConfig())


def _others(services: Mapping[str, Service], name: str, key: str) -> list[str]:
    """The services beside *name* that mount the volume *key*."""
    return [
        n for n, s in services.items() if n != name and any(m.kind == "volume" and m.source == key for m in s.container.mounts)
    ]


def own_names(service: Service, index: int) -> tuple[str, ...]:
    """What replica *index* of a stable service is called on its networks: `db-1` and `db-1.db`."""
    return (f"{service.name}-{index}", f"{service.name}-{index}.{service.name}") if service.stable else ()
