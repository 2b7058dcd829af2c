"""`x-fence` of a service."""

from __future__ import annotations

from typing import Any

from orchestrator.stackfile.fence import Fence
from orchestrator.stackfile.field_readers import Fields, ServiceContext
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.units import parse_duration

STRICT = "strict"


def x_fence(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """`strict`, or how long a task waits for the control plane after a boot."""
    if value == STRICT:
        return {"fence": Fence(boot_wait_s=None)}
    try:
        return {"fence": Fence(boot_wait_s=parse_duration(value))}
    except ValueError:
        draft.problem(path, f"{value!r} is neither strict nor a duration", "write strict, or a duration such as 15s")
        return {}
