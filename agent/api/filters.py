"""The `filters` of Docker's Engine API, which narrow a list.

Written as {"key": ["value"]}, or, by old clients, as {"key": {"value": true}}. One of the values of a key must match, but all
labels, and all keys.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from aiohttp import web

from agent.containers.logs import instant
from agent.contract.printable import quoted
from agent.errors import BadRequestError

T = TypeVar("T")
ALL_OF = ("label", "label!")
"""Keys under which every value must hold."""
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Filters:
    """The `filters` of a request: a JSON object of lists of words."""

    def __init__(self, request: web.Request) -> None:
        """Raises BadRequestError."""
        try:
            given = json.loads(request.query.get("filters") or "{}")
            given = {} if given is None else given
            self._values = {k: [v] if isinstance(v, str) else [str(word) for word in v] for k, v in given.items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise BadRequestError(f"filters={quoted(request.query['filters'])}: an object of lists") from None

    def __getitem__(self, key: str) -> list[str]:
        return self._values.get(key, [])

    def check(self, **checks: Callable[[str], object]) -> None:
        """Check each value with the function of *checks* for its key, even if the list is empty. Raises what they raise."""
        for key, check in checks.items():
            for value in self[key]:
                check(value)

    def chosen(self, items: Iterable[T], tests: Mapping[str, Callable[[T, str], bool]]) -> list[T]:
        """Those of *items* for which every key's test holds for one of its values. Raises BadRequestError for one without."""
        if unknown := self._values.keys() - tests.keys():
            raise BadRequestError(f"Invalid filter '{quoted(min(unknown))}'")
        return [
            i
            for i in items
            if all(
                all(test(i, v) for v in values) if key in ALL_OF else any(test(i, v) for v in values)
                for key, test in tests.items()
                if (values := self[key])
            )
        ]


def labelled(labels: Mapping[str, str], wanted: str) -> bool:
    """`key`, or `key=value`."""
    key, eq, value = wanted.partition("=")
    return key in labels and (not eq or labels[key] == value)


def path_matches(pattern: str, path: str) -> bool:
    """Whether the shell pattern, in which a star stands for anything but a slash, is all of *path*. Source: Go, path.Match."""
    parts = re.split(r"(\*|\?|\[[^\]]*\])", pattern)
    special = {"*": "[^/]*", "?": "[^/]"}
    try:
        return re.fullmatch("".join(special.get(p, p if p.startswith("[") else re.escape(p)) for p in parts), path) is not None
    except re.error:
        raise BadRequestError("syntax error in pattern") from None


def pattern(text: str) -> re.Pattern[str] | None:
    """A regular expression for names, as in Docker; None if *text* is not one, and stands for itself. Raises BadRequestError
    for one whose matching may take exponential time."""
    loose = re.findall(r"[*+?{]", text)
    if len(text) > 256 or len(loose) > 3 or re.search(r"\)[*+?{]", text):
        raise BadRequestError(f"name={quoted(text)}: at most 256 characters and three of * + ? {{, none behind a bracket")
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return None


NOT_DANGLING = "Invalid filter 'dangling=[{}]'"


def truth(word: str, complaint: str = "invalid filter value {!r}: it is neither true nor false") -> bool:
    """Raises BadRequestError with *complaint* about the word."""
    if word.lower() in ("1", "true", "t"):
        return True
    if word.lower() in ("0", "false", "f"):
        return False
    raise BadRequestError(complaint.format(quoted(word)))


def whole(word: str) -> int:
    """Raises BadRequestError."""
    try:
        return int(word[:20])
    except ValueError:
        raise BadRequestError(f'strconv.Atoi: parsing "{quoted(word)}": invalid syntax') from None


def one_of(complaint: str, *words: str) -> Callable[[str], str]:
    """A check of a filter's value: one of *words*, or else BadRequestError with *complaint* about the value."""

    def check(value: str) -> str:
        if value not in words:
            raise BadRequestError(complaint.format(quoted(value)))
        return value

    return check


def moment_of(value: str) -> float:
    """Seconds since the epoch of an RFC 3339 time, of a number of them, or of a duration before now (`24h`, `1h30m`).

    Raises BadRequestError."""
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", value)
    if parts and "".join(n + u for n, u in parts) == value.removeprefix("-").removeprefix("+"):
        before = sum(float(n) * UNITS[u] for n, u in parts)
        return time.time() + (before if value.startswith("-") else -before)
    try:
        return instant(value)
    except (ValueError, OverflowError):
        raise BadRequestError(f'failed to parse value as time or duration: "{quoted(value)}"') from None


def moment(request: web.Request, name: str) -> float | None:
    """A time of the query in seconds since the epoch; None if it is missing. Raises BadRequestError."""
    value = request.query.get(name, "")
    try:
        return None if value in ("", "0") else moment_of(value)
    except BadRequestError as error:
        raise BadRequestError(f"{name}: {error}") from None
