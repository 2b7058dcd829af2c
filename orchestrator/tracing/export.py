"""Spans to a collector by OTLP over HTTP, with OpenTelemetry's own exporter: it has the variables of that, such as
OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE and OTEL_RESOURCE_ATTRIBUTES.

Source: OpenTelemetry, "OTLP Exporter Configuration".
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.contract.version import VERSION
from orchestrator.tracing.spans import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

MOST_WAITING = 64
"""Traces that wait for a collector; what comes beyond is lost."""
CLOSE_S, LONGEST_S = 1.0, 30.0
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
MISSING = "traces are not sent: `pip install 'pystack-orchestrator[traces]'` brings what sends them"
log = logging.getLogger(__name__)


def wanted() -> bool:
    """Whether the environment names a collector."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and any(os.environ.get(name) for name in ENDPOINTS)


def installed() -> bool:
    """Whether the exporter is there."""
    return importlib.util.find_spec("opentelemetry") is not None


class Exporter:
    """Sends from a thread of its own, as *service*, to the collector at *endpoint* (`http://HOST:4318`), "" for the one of the
    environment. The thread and what it imports begin with the first trace."""

    def __init__(self, service: str, endpoint: str = "") -> None:
        self._service, self._endpoint = service, endpoint
        self._waiting: queue.Queue[list[Span] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def send(self, spans: list[Span]) -> None:
        """Have *spans* sent; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(spans)
        except queue.Full:
            log.warning("traces: the collector does not keep up: one is left out")

    def close(self, within_s: float = CLOSE_S) -> None:
        """Send what waits, for *within_s* seconds at most."""
        if self._thread:
            try:
                self._waiting.put_nowait(None)
            except queue.Full:
                return
            self._thread.join(within_s)

    def _run(self) -> None:
        try:
            self._send_all()
        except Exception:
            log.exception("traces")

    def _send_all(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # a line for each try; here it is one for each change
        sender = OTLPSpanExporter(endpoint=f"{self._endpoint.rstrip('/')}/v1/traces" if self._endpoint else None)
        resource, well = _resource(self._service), True
        while (spans := self._waiting.get()) is not None:
            sent = sender.export([_readable(one, resource) for one in spans]) is SpanExportResult.SUCCESS
            if sent != well:
                log.warning("traces: %s", "the collector takes them again" if sent else "the collector does not take them")
            well = sent


def _resource(service: str) -> Resource:
    from opentelemetry.sdk.resources import Resource

    of_environment = Resource.create()
    if str(of_environment.attributes.get("service.name", "")).startswith("unknown_service"):
        return of_environment.merge(Resource({"service.name": service, "service.version": VERSION}))
    return of_environment


def _readable(one: Span, resource: Resource) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    trace, sampled = int(one.trace, 16), TraceFlags(TraceFlags.SAMPLED)
    return ReadableSpan(
        name=one.name,
        context=SpanContext(trace, int(one.span, 16), is_remote=False, trace_flags=sampled),
        parent=SpanContext(trace, int(one.parent, 16), is_remote=False, trace_flags=sampled) if one.parent else None,
        resource=resource,
        attributes=one.attributes,
        kind=SpanKind[one.kind.upper()],
        status=Status(StatusCode.ERROR, one.error) if one.error else Status(StatusCode.UNSET),
        start_time=one.start,
        end_time=one.end,
        instrumentation_scope=InstrumentationScope("pystack", VERSION),
    )


def hand_over(spans: list[Span]) -> None:
    """Have *spans* sent by a process that outlives this one: a command does not wait for a collector."""
    words = [sys.executable, "-m", "orchestrator.tracing.export"]
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)
    assert child.stdin
    child.stdin.write(json.dumps(spans).encode())
    child.stdin.close()


def main(text: str) -> None:
    """Send the spans that `hand_over` wrote."""
    exporter = Exporter("pystack")
    found: Sequence[list[object]] = json.loads(text)
    exporter.send([Span(*fields) for fields in found])  # type: ignore[arg-type]
    exporter.close(LONGEST_S)


if __name__ == "__main__":
    main(sys.stdin.read())
