"""The bounds of an archive, and the check of its entries' paths. Pure."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from agent.contract.printable import quoted
from agent.trees.errors import TreeError
from agent.trees.paths import parts_of

NAME_BYTES = 255
"""Of one part of a path: NAME_MAX. Source: include/uapi/linux/limits.h."""


class Bounds(NamedTuple):
    """The bounds of one archive: entries, bytes of all files (holes count), bytes and parts of a path."""

    entries: int = 2_000_000
    bytes: int = 64 << 30
    path_bytes: int = 4096
    path_depth: int = 255

    @classmethod
    def of(cls, text: str) -> Bounds:
        """From a worker's argument: a JSON object with these names, "" for the defaults."""
        return cls(**json.loads(text)) if text else cls()

    def parts(self, name: str, archive: str) -> list[str]:
        """The parts of the path *name*, relative to the root of the *archive* (its title in messages). Raises TreeError if the
        path leaves the root or is out of bounds."""
        parts = parts_of(name)
        if wrong := self._wrong(name, parts):
            raise TreeError(f"{entry_title(archive, name)} {wrong}")
        return parts

    def _wrong(self, name: str, parts: list[str]) -> str:
        if "\0" in name:
            return "has a zero byte in its name"
        if ".." in parts:
            return "leaves its root"
        if len(parts) > self.path_depth:
            return f"is more than {self.path_depth} directories deep"
        raw = os.fsencode(name)
        if len(raw) > self.path_bytes:
            return f"has a path longer than {self.path_bytes} bytes"
        if len(raw) > NAME_BYTES and any(len(os.fsencode(part)) > NAME_BYTES for part in parts):
            return f"has a name longer than {NAME_BYTES} bytes"
        return ""


def entry_title(archive: str, name: str) -> str:
    """The beginning of a message about the entry *name* of an *archive*, which is called "archive", "layer" …"""
    return f"the {archive}'s entry {quoted(name)}"
