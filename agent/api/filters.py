"""What a list is narrowed to: the `filters` of Docker's Engine API.

Written as {"key": ["value"]}, or, by old clients, as {"key": {"value": true}}. Of values under one key one must hold, of labels
and of keys all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from aiohttp import web

from agent.containers.logs import instant
from agent.errors import BadRequestError
from agent.trees.extract import quoted

T = TypeVar("T")


class Filters:
    def __init__(self, request: web.Request) -> None:
        """Raises BadRequestError."""
        try:
            given = json.loads(request.query.get("filters") or "{}")
            self._values = {k: [v] if isinstance(v, str) else [str(word) for word in v] for k, v in given.items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise BadRequestError(f"filters={quoted(request.query['filters'])}: an object of lists") from None

    def __getitem__(self, key: str) -> list[str]:
        return self._values.get(key, [])

    def chosen(self, items: Iterable[T], tests: Mapping[str, Callable[[T, str], bool]]) -> list[T]:
        """Those of *items* for which every key's test holds for one of its values. Raises BadRequestError for one without."""
        if unknown := self._values.keys() - tests.keys():
            raise BadRequestError(f"invalid filter '{quoted(min(unknown))}': there is {', '.join(sorted(tests))}")
        return [i for i in items if all(
            all(test(i, v) for v in values) if key == "label" else any(test(i, v) for v in values)
            for key, test in tests.items() if (values := self[key])
        )]


def labelled(labels: Mapping[str, str], wanted: str) -> bool:
    """`key`, or `key=value`."""
    key, eq, value = wanted.partition("=")
    return key in labels and (not eq or labels[key] == value)


def truth(word: str) -> bool:
    """Raises BadRequestError."""
    if word.lower() in ("1", "true", "t"):
        return True
    if word.lower() in ("0", "false", "f"):
        return False
    raise BadRequestError(f"{quoted(word)!r} is neither true nor false")


def moment(request: web.Request, name: str) -> float | None:
    """A time of the query in seconds since the epoch; None where there is none. Raises BadRequestError."""
    value = request.query.get(name, "")
    if value in ("", "0"):
        return None
    return stamp(value, name)


def stamp(value: str, name: str = "until") -> float:
    """A time in seconds since the epoch. Raises BadRequestError."""
    try:
        return instant(value)
    except (ValueError, OverflowError):
        raise BadRequestError(f"{name}={quoted(value)}: an RFC 3339 time, or seconds since the epoch") from None


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression as Docker takes it for names; one that may try for ever is refused. Raises BadRequestError."""
    loose = re.findall(r"[*+?{]", text)
    if len(text) > 256 or len(loose) > 3 or re.search(r"\)[*+?{]", text):
        raise BadRequestError(f"name={quoted(text)}: at most 256 characters and three of * + ? {{, none behind a bracket")
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadRequestError(f"name={quoted(text)} is no regular expression: {error}") from None
