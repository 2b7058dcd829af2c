"""Contexts of builds that have ended, for the next build of the same folder: only what differs has to be sent again.

build/contexts/<hex>/tree/       the files
build/contexts/<hex>/kept.json   what its sender said of each path, and what the list says of it
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from agent import files
from agent.build.selection import Entry


class Kept(msgspec.Struct, frozen=True):
    """A kept context: the sender's mark of each path, and the entries on disk."""

    marks: dict[str, str] = {}
    entries: dict[str, Entry] = {}


class KeptContexts:
    """Contexts of earlier builds, by a key that the client chooses: the same for the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _place(self, key: str) -> Path:
        return self.folder / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:40]

    def take(self, key: str, goal: Path) -> Kept:
        """Move the context that is kept under *key* to *goal*; returns an empty one if there is none."""
        place = self._place(key)
        try:
            kept = msgspec.json.decode((place / "kept.json").read_bytes(), type=Kept)
            (place / "tree").rename(goal)
        except (OSError, msgspec.MsgspecError):
            kept = Kept()
        files.remove_tree(place)
        return kept

    def put(self, key: str, tree: Path, kept: Kept) -> None:
        """Keep *tree*, which is no longer in use, under *key*."""
        place = self._place(key)
        files.remove_tree(place)
        place.mkdir(parents=True, mode=0o700)
        tree.rename(place / "tree")
        files.write_atomically(place / "kept.json", msgspec.json.encode(kept))

    def drop(self, older_s: float, now: float) -> None:
        """Remove contexts that were kept more than *older_s* seconds before *now*."""
        for place in list(self.folder.glob("*")):
            if now - os.stat(place).st_mtime >= older_s:
                files.remove_tree(place)
