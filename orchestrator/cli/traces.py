"""Traces of a command, where the environment names a collector."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def traced(name: str) -> Iterator[None]:
    """Meanwhile spans are collected, below TRACEPARENT if there is one; afterwards another process sends them."""
    if not any(word.startswith("OTEL_EXPORTER_OTLP") for word in os.environ):  # the common case, which imports nothing
        yield
        return
    import click

    from orchestrator.tracing import export
    from orchestrator.tracing.spans import trace

    if not export.wanted():
        yield
        return
    if not export.installed():
        click.echo(export.MISSING, err=True)
        yield
        return
    with trace(name, os.environ.get("TRACEPARENT", ""), "client", export.hand_over):
        yield


def part(name: str) -> contextlib.AbstractContextManager[object]:
    """A span of the command's trace, if there is one."""
    if spans := sys.modules.get("orchestrator.tracing.spans"):
        made: contextlib.AbstractContextManager[object] = spans.span(name)
        return made
    return contextlib.nullcontext()


def traceparent() -> str:
    """What goes along with requests, "" without a trace."""
    spans = sys.modules.get("orchestrator.tracing.spans")
    return spans.traceparent() if spans else ""
