"""Spans of one trace, collected where they happen. Without a trace under way every function here does nothing.

Source: W3C Trace Context (traceparent); OpenTelemetry specification, Tracing API.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Literal, NamedTuple

Value = str | int | float | bool
Kind = Literal["internal", "server", "client"]
MOST_SPANS = 4000
"""Of one trace; further ones are left out."""
LONGEST_ERROR = 300
TRACEPARENT = r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"


class Span(NamedTuple):
    """Something that took from *start* to *end* (nanoseconds since 1970). The identities are hexadecimal; *parent* is "" for
    none, *error* "" where it went well."""

    name: str
    trace: str
    span: str
    parent: str
    kind: Kind
    start: int
    end: int
    attributes: dict[str, Value]
    error: str


class _Ended:
    """The spans of a trace that have ended, until it is sent: what goes on beyond it is left out."""

    def __init__(self) -> None:
        self.spans: list[Span] | None = []

    def add(self, one: Span) -> None:
        """One more."""
        if self.spans is not None and (len(self.spans) < MOST_SPANS or one.kind != "internal"):
            self.spans.append(one)

    def take(self) -> list[Span]:
        """All of them, as the trace is over."""
        taken, self.spans = self.spans or [], None
        return taken


class _Place(NamedTuple):
    """Where the program is now: in the span *span* of the trace *trace*, whose spans are collected in *ended*."""

    trace: str
    span: str
    ended: _Ended


_place: ContextVar[_Place | None] = ContextVar("place in a trace", default=None)


def read_traceparent(text: str) -> tuple[str, str, bool] | None:
    """The trace, the span, and whether it is recorded, of a header `traceparent`; None where that is not one."""
    found = re.fullmatch(TRACEPARENT, text[:200])
    return (found[1], found[2], bool(int(found[3], 16) & 1)) if found else None


def traceparent() -> str:
    """The header for those that are asked from here, "" outside of a trace."""
    here = _place.get()
    return f"00-{here.trace}-{here.span}-01" if here else ""


@contextlib.contextmanager
def trace(
    name: str, parent: str, kind: Kind, send: Callable[[list[Span]], None] | None, **attributes: Value
) -> Iterator[dict[str, Value]]:
    """A span that begins a trace here, or goes on with that of *parent*, a traceparent ("" for none). *send* gets all spans in
    the end; None leaves the trace out, as does a *parent* that is not recorded. Yields the attributes, to be added to."""
    above = read_traceparent(parent)
    if send is None or (above and not above[2]):
        yield attributes
        return
    ended = _Ended()
    identity, beyond = (above[0], above[1]) if above else (os.urandom(16).hex(), "")
    try:
        with _entered(_Place(identity, os.urandom(8).hex(), ended), name, beyond, kind, attributes):
            yield attributes
    finally:
        send(ended.take())


@contextlib.contextmanager
def span(name: str, *, since_s: float = 0.0, **attributes: Value) -> Iterator[dict[str, Value]]:
    """A part of the span that the program is in; it began at *since_s* (seconds since 1970), 0.0 for now. Yields the
    attributes, to be added to."""
    here = _place.get()
    if here is None:
        yield attributes
        return
    with _entered(here._replace(span=os.urandom(8).hex()), name, here.span, "internal", attributes, since_s):
        yield attributes


def record(name: str, start_s: float, end_s: float, **attributes: Value) -> None:
    """A part of the span that the program is in, which is over: between two times in seconds since 1970."""
    if here := _place.get():
        start, end = int(start_s * 1e9), int(end_s * 1e9)
        here.ended.add(Span(name, here.trace, os.urandom(8).hex(), here.span, "internal", start, end, attributes, ""))


@contextlib.contextmanager
def _entered(
    place: _Place, name: str, parent: str, kind: Kind, attributes: dict[str, Value], since_s: float = 0.0
) -> Iterator[None]:
    token = _place.set(place)
    now, began = time.time_ns(), time.monotonic_ns()
    start = int(since_s * 1e9) or now
    error = ""
    try:
        yield
    except BaseException as raised:
        if not (isinstance(raised, SystemExit) and not raised.code):
            error = (str(raised) or type(raised).__name__)[:LONGEST_ERROR]
        raise
    finally:
        _place.reset(token)
        end = now + time.monotonic_ns() - began
        place.ended.add(Span(name, place.trace, place.span, parent, kind, start, end, attributes, error))
