"""`x-bandwidth:` of a service, of one of its networks, and of a network."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.contract.bandwidth import LARGEST_BURST, Bandwidth, merged, parse_rate
from agent.contract.container import Attachment
from orchestrator.stackfile.field_readers import Fields, ServiceContext
from orchestrator.stackfile.load_context import LoadContext
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.model import LAN_DRIVERS, Service, StackNetwork
from orchestrator.stackfile.units import parse_bytes

KEY = "x-bandwidth"


def read(reading: LoadContext, value: Any, path: Path_) -> Bandwidth | None:
    """The limits that stand at *path*; None for none, and for those that are a problem."""
    if value is None or not reading.is_valid(path):
        return None
    found: dict[str, int] = {}
    for key, item in reading.mapping(value, path).items():
        try:
            if key in ("ingress", "egress"):
                found[key] = parse_rate(item)
            elif key == "burst":
                found[key] = parse_bytes(item)
                if not 0 < found[key] <= LARGEST_BURST:
                    raise ValueError("must be from 1 byte to 256m")
        except ValueError as error:
            found.pop(key, None)
            reading.problem((*path, key), str(error))
    if "burst" in found and len(found) == 1 and len(value) == 1:
        reading.problem(path, "a burst limits nothing without a rate", "add ingress: or egress:, such as 20mbit")
    return Bandwidth(**found) if found else None


def x_bandwidth(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-bandwidth."""
    mode = draft.body.get("network_mode")
    if mode and mode not in ("bridge", "default"):
        draft.reading.check(path, f"has no effect with network_mode {mode}", "limits are those of a network of its own")
    return {"bandwidth": read(draft.reading, value, path)}


def resolved(reading: LoadContext, service: Service, attachment: Attachment, network: StackNetwork) -> Attachment:
    """*attachment* with all that is said of its bandwidth: there, at the service, at the network, in this order."""
    found = merged(attachment.bandwidth, service.bandwidth, network.bandwidth)
    c = service.container
    able = {word.upper().removeprefix("CAP_") for word in c.cap_add} & {"NET_ADMIN", "ALL"}
    if found and network.driver in LAN_DRIVERS and (able or c.privileged):
        why = f"on a {network.driver} network a container with CAP_NET_ADMIN can take its own limits away"
        reading.warn(("services", service.name), why)
    return msgspec.structs.replace(attachment, bandwidth=found)
