"""What steps came to, kept for the next builds: a key, made of all that a step depends on, leads to the layer that it gave.

    build/cache/<hex>.json    one entry; written at once or not at all
    build/cache/answers       what a COPY takes from the files of a stage, by the stage's key

Entries whose layer is gone count for nothing. Prune goes by age and size, the longest unused first. Source:
docker-builder-prune(1).
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent import files
from agent.contract.failpoints import failpoint

log = logging.getLogger(__name__)
ANSWERS, MOST_ANSWERS = "answers", 20_000
FRESH_S = 30.0
"""How long after its last use an entry is written again: a build of the same takes no disk."""


class Entry(msgspec.Struct, kw_only=True):
    """*layer* is a folder of the store's, "" if the step changed nothing; *identity* tells this result from another of
    the same step. *diff_id*, *digest* and *size* are its archive's, once that was made; *disk* is what its folder takes, in
    bytes. Times are seconds since the epoch."""

    key: str
    note: str
    layer: str
    identity: str
    created: float
    used: float
    diff_id: str = ""
    digest: str = ""
    size: int = 0
    disk: int = 0
    count: int = 0


def key_of(*parts: object) -> str:
    """The key of a step that depends on *parts*: texts, numbers, None, and lists and tables of them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Cache:
    """The results of steps, one JSON file each below *folder*."""

    def __init__(self, folder: Path, there: Callable[[str], bool]) -> None:
        """*there* tells whether the folder of a layer exists."""
        self.folder, self._there = folder, there
        self.entries: dict[str, Entry] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._answers, self._asked = self._read_answers(), False
        for path in folder.glob("*.json"):
            try:
                entry = msgspec.json.decode(path.read_bytes(), type=Entry)
            except (OSError, msgspec.MsgspecError):
                path.unlink(missing_ok=True)  # of a full disk: the step is done again
                continue
            if entry.key != path.stem or (entry.layer and not there(entry.layer)):
                path.unlink(missing_ok=True)
            else:
                self.entries[entry.key] = entry

    def find(self, key: str) -> Entry | None:
        """The result of the step *key*; None if it has to be done."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        if entry.layer and not self._there(entry.layer):
            self.drop(key)
            return None
        stale = time.time() - entry.used > FRESH_S
        entry.used, entry.count = time.time(), entry.count + 1
        if stale:
            self.save(entry)
        return entry

    def put(self, key: str, note: str, layer: str, disk: int) -> Entry:
        """Keep that the step *key* gave *layer*."""
        now = time.time()
        entry = Entry(key=key, note=note[:400], layer=layer, disk=disk, identity=secrets.token_hex(16), created=now, used=now)
        self.keep(entry)
        return entry

    def keep(self, entry: Entry) -> None:
        """Keep an entry that is complete."""
        self.save(entry)
        self.entries[entry.key] = entry

    def save(self, entry: Entry) -> None:
        """Write *entry* to its file; where the disk is full, its step is done again after a restart."""
        failpoint("build.cache")
        try:
            files.write_atomically(self.folder / f"{entry.key}.json", msgspec.json.encode(entry))
        except OSError as error:  # a full disk: the result is there, and the next build makes it again
            log.warning("the build cache cannot be written: %s", error)

    def known(self, question: str) -> str:
        """The answer to *question*, "" if there is none yet."""
        return self._answers.get(question, "")

    def remember(self, question: str, answer: str) -> None:
        """Keep the *answer* to *question*, which is the same for ever: both are digests."""
        self._answers[question] = answer
        while len(self._answers) > MOST_ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._asked = True

    def settle(self) -> None:
        """Write the answers, if there are new ones."""
        if self._asked:
            self._asked = False
            try:
                files.write_atomically(self.folder / ANSWERS, msgspec.json.encode(self._answers))
            except OSError as error:  # a full disk: they are found again
                log.warning("the build cache cannot be written: %s", error)

    def _read_answers(self) -> dict[str, str]:
        try:
            return msgspec.json.decode((self.folder / ANSWERS).read_bytes(), type=dict[str, str])
        except (OSError, msgspec.MsgspecError):
            return {}

    def drop(self, key: str) -> None:
        """Forget the result of the step *key*; its layer goes with the next collection of the store."""
        self.entries.pop(key, None)
        (self.folder / f"{key}.json").unlink(missing_ok=True)

    def layers(self) -> set[str]:
        """Folders of the store that entries hold."""
        return {e.layer for e in self.entries.values() if e.layer}

    def doomed(
        self,
        *,
        older_s: float = 0.0,
        keep_bytes: int = 0,
        everything: bool = True,
        busy: set[str] | None = None,
        shared: set[str] | None = None,
    ) -> list[Entry]:
        """What a prune takes: unused for *older_s* seconds, the longest unused first, until no more than *keep_bytes* are left.
        Without *everything* what images have too (*shared*) stays, which frees nothing; *busy* layers are in use right now."""
        now = time.time()
        ranked = sorted(
            (e for e in self.entries.values() if e.layer not in (busy or set()) or not e.layer), key=lambda e: e.used
        )
        left = sum(e.disk for e in self.entries.values())
        found = []
        for entry in ranked:
            if now - entry.used < older_s or (keep_bytes and left <= keep_bytes):
                continue
            if not everything and entry.layer in (shared or set()):
                continue
            found.append(entry)
            left -= entry.disk
        return found
