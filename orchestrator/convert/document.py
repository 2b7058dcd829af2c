"""The stack file that a conversion makes, and its warnings."""

from __future__ import annotations

import re
from typing import Any


class Document:
    """The top-level elements of the stack file. *warnings* say what could not be converted, and what the user must do."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = {}
        self.networks: dict[str, Any] = {}
        self.volumes: dict[str, Any] = {}
        self.configs: dict[str, Any] = {}
        self.secrets: dict[str, Any] = {}
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Add a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def unique_service_name(self, spec: str) -> str:
        """*spec* as the name of a service that no other service has."""
        name = re.sub(r"[^a-zA-Z0-9._-]+", "-", spec).strip("-.") or "service"
        number, free = 2, name
        while free in self.services:
            free, number = f"{name}-{number}", number + 1
        return free

    def plain(self) -> dict[str, Any]:
        """The document without empty elements."""
        parts = ("services", "networks", "volumes", "configs", "secrets")
        return {part: value for part in parts if (value := getattr(self, part))}


def escape_dollars(text: str) -> str:
    """*text* with each $ doubled, so that the loader reads no variable in it."""
    return text.replace("$", "$$")
