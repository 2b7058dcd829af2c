"""Whose manifests this node takes: not those for a membership that it has left, nor those of a server that led before."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

from agent import files
from agent.contract.manifest import Manifest
from agent.errors import ConflictError

KEPT = 16
log = logging.getLogger(__name__)


class Membership:
    """*path* is the file that keeps the memberships that were left, the oldest first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left: list[str] = []
        with contextlib.suppress(OSError, ValueError, TypeError):
            self._left = [str(one) for one in json.loads(path.read_bytes())]

    def leave(self, member: str) -> None:
        """The node is not *member* any more, and never again: each time that it is added it is another one."""
        self._left = [*(one for one in self._left if one != member), member][-KEPT:]
        try:
            files.write_atomically(self._path, json.dumps(self._left).encode(), 0o600)
        except OSError as error:  # a full disk: this agent knows it all the same
            log.warning("%s: %s", self._path, error)

    def check(self, manifest: Manifest, present: Manifest) -> None:
        """Raises ConflictError for a *manifest* that is nobody's wish any more: one for a member that has left, or one of a
        server that led before the one that sent *present*."""
        if manifest.member and manifest.member in self._left:
            raise ConflictError("this node was removed from the cluster: a manifest for what it was comes too late")
        if manifest.member == present.member and 0 < manifest.term < present.term:
            raise ConflictError("another server leads by now: a manifest of the one before it comes too late")
