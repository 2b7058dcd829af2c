"""Local volumes: a folder each below the state folder, with its description beside the data."""

from __future__ import annotations

import asyncio
import datetime
import re
from pathlib import Path

import msgspec

from agent import files
from agent.errors import AgentError, BadRequest, Conflict, NotFound
from agent.failpoints import failpoint
from agent.paths import Paths

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}\Z")


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A volume of this node. *fresh* until its first user has filled it from the image."""

    name: str
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False
    fresh: bool = True
    created: str = ""


class Volumes:
    def __init__(self, paths: Paths) -> None:
        self.root = paths.volumes
        self.root.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.all: dict[str, Stored] = {}
        for path in self.root.glob("*/volume.json"):
            try:
                stored = msgspec.json.decode(path.read_bytes(), type=Stored)
            except msgspec.DecodeError:
                # the data is what counts: a damaged description is written anew, and never filled over
                stored = Stored(name=path.parent.name, fresh=False)
            self.all[stored.name] = stored
        for path in self.root.glob("*.tmp"):
            files.remove_tree(path)

    def data(self, name: str) -> Path:
        return self.root / name / "_data"

    def create(
        self, name: str, *, driver: str = "local", labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None, anonymous: bool = False,
    ) -> Stored:
        """Make a volume; one that is there already is returned as it is."""
        if not _NAME.match(name):
            raise BadRequest(f"volume name {name!r}: letters, digits and _ . - only, beginning with a letter or digit")
        if name in self.all:
            return self.all[name]
        if driver != "local":
            raise BadRequest(f"volume {name}: driver {driver!r} is not known on this node; there is: local")
        if options:
            raise BadRequest(f"volume {name}: driver_opts {', '.join(sorted(options))} are not supported yet")
        failpoint("volume.create")
        (self.root / name / "_data").mkdir(parents=True, mode=0o755, exist_ok=True)
        stored = Stored(
            name=name, labels=labels or {}, options=options or {}, anonymous=anonymous,
            created=datetime.datetime.now(datetime.UTC).isoformat(),
        )
        self._save(stored)
        return stored

    def _save(self, stored: Stored) -> None:
        files.write_atomically(self.root / stored.name / "volume.json", msgspec.json.encode(stored))
        self.all[stored.name] = stored

    def get(self, name: str) -> Stored:
        if name not in self.all:
            raise NotFound(f"no such volume: {name}")
        return self.all[name]

    async def fill(self, name: str, rootfs: Path, target: str) -> None:
        """Copy what the image has at *target* into a fresh volume, owners and attributes kept, as Docker does."""
        stored = self.get(name)
        if not stored.fresh:
            return
        try:
            source = files.resolve_in_root(rootfs, target)
        except OSError:
            source = None
        data = self.data(name)
        if source and source.is_dir() and not any(data.iterdir()):
            failpoint("volume.fill")
            child = await asyncio.create_subprocess_exec(
                "cp", "-a", "--", f"{source}/.", str(data), stderr=asyncio.subprocess.PIPE
            )
            _, err = await child.communicate()
            if child.returncode:
                raise AgentError(f"volume {name}: cannot be filled from the image: {err.decode().strip()}")
        self._save(msgspec.structs.replace(stored, fresh=False))

    def remove(self, name: str, users: list[str]) -> None:
        """Delete a volume and its data. Raises Conflict while a container uses it."""
        self.get(name)
        if users:
            raise Conflict(f"volume {name} is in use by {', '.join(users)}: remove that first")
        failpoint("volume.remove")
        doomed = self.root / f"{name}.tmp"
        (self.root / name).rename(doomed)
        del self.all[name]
        files.remove_tree(doomed)
