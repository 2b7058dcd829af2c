"""Credentials for registries that came with a request, for the pulls that come of it: nothing keeps them.

A rollout that another server goes on with has them no more: that server pulls with its own host's. Source: Docker Engine API
v1.48, "Authentication" (X-Registry-Auth), ImageBuild (X-Registry-Config).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

HEADERS = ("X-Registry-Auth", "X-Registry-Config")
_given: ContextVar[Mapping[str, str] | None] = ContextVar("headers with credentials", default=None)


def keep(headers: Mapping[str, str]) -> None:
    """Keep those of *headers* that have credentials, for as long as this task and those that it begins live."""
    _given.set({name: value for name in HEADERS if (value := headers.get(name, ""))})


def given() -> Mapping[str, str]:
    """The headers for a node that is to pull."""
    return _given.get() or {}
