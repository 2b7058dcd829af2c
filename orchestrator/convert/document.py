"""A stack file in the making, and what could not be taken over into it."""

from __future__ import annotations

import re
from typing import Any


class Document:
    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = {}
        self.networks: dict[str, Any] = {}
        self.volumes: dict[str, Any] = {}
        self.configs: dict[str, Any] = {}
        self.secrets: dict[str, Any] = {}
        self.said: list[str] = []

    def warn(self, what: str) -> None:
        """Something has no counterpart, or somebody must do something about it."""
        if what not in self.said:
            self.said.append(what)

    def unique_service_name(self, spec: str) -> str:
        """*spec* as a service may be called, and no other is."""
        name = re.sub(r"[^a-zA-Z0-9._-]+", "-", spec).strip("-.") or "service"
        number, free = 2, name
        while free in self.services:
            free, number = f"{name}-{number}", number + 1
        return free

    def plain(self) -> dict[str, Any]:
        """The document, empty parts left out."""
        parts = ("services", "networks", "volumes", "configs", "secrets")
        return {part: value for part in parts if (value := getattr(self, part))}


def escape_dollars(text: str) -> str:
    """*text* as a stack file must write it: a $ is no variable."""
    return text.replace("$", "$$")
