"""Contexts of builds that have ended, for the next build of the same folder: only what differs has to be sent again.

build/contexts/<hex>/tree/         the files
build/contexts/<hex>/marks.json    of each path, what its sender said of it
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from agent import files


class KeptContexts:
    """By a key that a client chooses, the same for the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _place(self, key: str) -> Path:
        return self.folder / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:40]

    def take(self, key: str, goal: Path) -> dict[str, str]:
        """Move what is kept as *key* to *goal*; its marks, none where nothing is kept."""
        place = self._place(key)
        try:
            marks = msgspec.json.decode((place / "marks.json").read_bytes(), type=dict[str, str])
            (place / "tree").rename(goal)
        except (OSError, msgspec.MsgspecError):
            marks = {}
        files.remove_tree(place)
        return marks

    def put(self, key: str, tree: Path, marks: dict[str, str]) -> None:
        """Keep *tree*, which nobody needs any more."""
        place = self._place(key)
        files.remove_tree(place)
        place.mkdir(parents=True, mode=0o700)
        tree.rename(place / "tree")
        files.write_atomically(place / "marks.json", msgspec.json.encode(marks))

    def drop(self, older_s: float, now: float) -> None:
        """Forget what was kept more than *older_s* seconds before *now*."""
        for place in list(self.folder.glob("*")):
            if now - os.stat(place).st_mtime >= older_s:
                files.remove_tree(place)
