"""`x-hugepages:` of a service."""

from __future__ import annotations

from typing import Any

from agent.contract.sizes import hugepages
from orchestrator.stackfile.field_readers import Fields, ServiceContext, pairs
from orchestrator.stackfile.marked_document import Path_


def x_hugepages(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-hugepages: sizes of huge pages, and how much memory in such pages may be used."""
    fields = pairs("hugepages")(draft, value, path)
    try:
        return {"hugepages": hugepages(fields["hugepages"])}
    except ValueError as error:
        draft.problem(path, str(error), "write {2MB: 64m}")
        return {}
