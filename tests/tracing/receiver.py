"""A collector that keeps what it is sent: `python -m tests.tracing.receiver ADDRESS PORT FOLDER`.

Requests are files of FOLDER; `spans_in` reads them by OpenTelemetry's own definition of the protocol.
"""

from __future__ import annotations

import importlib.util
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

needs_exporter = pytest.mark.skipif(
    not importlib.util.find_spec("opentelemetry"), reason="needs the extra traces: `make setup`"
)


def serve(address: str, port: int, folder: Path) -> ThreadingHTTPServer:
    """A server that is ready to answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            number = len(list(folder.iterdir()))
            (folder / f"{number}.{self.path.strip('/').replace('/', '-')}").write_bytes(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer((address, port), Handler)


def spans_in(folder: Path) -> list[tuple[str, Any]]:
    """(service, span) of all that came."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    found = []
    for file in sorted(folder.iterdir()):
        assert file.suffix == ".v1-traces"
        for of_resource in ExportTraceServiceRequest.FromString(file.read_bytes()).resource_spans:
            service = next(a.value.string_value for a in of_resource.resource.attributes if a.key == "service.name")
            found += [(service, span) for scope in of_resource.scope_spans for span in scope.spans]
    return found


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])).serve_forever()
