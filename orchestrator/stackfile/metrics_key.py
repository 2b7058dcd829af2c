"""`x-metrics` of a service."""

from __future__ import annotations

from typing import Any

from orchestrator.stackfile.field_readers import Fields, ServiceContext, integer, scalar
from orchestrator.stackfile.ingress import path_problem
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.model import MetricsEndpoint


def x_metrics(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.x-metrics."""
    body = draft.reading.mapping(value, path)
    fields = integer("port", 1, 65535)(draft, body["port"], (*path, "port"))
    if "path" in body:
        fields["path"] = scalar(body["path"])
        if why := path_problem(fields["path"]):
            draft.problem((*path, "path"), f"{fields['path'][:300]!r} {why}", "write /metrics, without % and without a query")
    return {"metrics": MetricsEndpoint(**fields)} if "port" in fields else {}
