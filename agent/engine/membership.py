"""Which memberships this node has had and left: a manifest of one of them, however late it comes, is nobody's wish any more."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

from agent import files
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

    def check(self, member: str) -> None:
        """Raises ConflictError for a manifest of a *member* that has left."""
        if member and member in self._left:
            raise ConflictError("this node was removed from the cluster: a manifest for what it was comes too late")
