"""Backups of volumes: restic, which knows only what changed, encrypts it, and speaks to all kinds of places.

Each run is one process in a view (`agent.trees.restic`). Its cache lies beside the volumes, one for each repository.
Source: restic(1), restic-backup(1), "Scripting" in restic's documentation.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent import files
from agent.cancellation import to_end
from agent.contract.backup import VARIABLES, BackupOrder, BackupReport, Repository, Snapshot
from agent.contract.failpoints import failpoint
from agent.contract.printable import quoted, shown
from agent.errors import AgentError, BadRequestError, ConflictError, NotFoundError
from agent.trees import workers
from agent.volumes.migration import VolumeMigration

SECRET, PAUSED = "secret", "paused.json"
USERS = b"root:x:0:0:root:/:/usr/sbin/nologin\n"
SWITCH = b"passwd: files\ngroup: files\nhosts: files dns\n"
ENDING_S = 10.0
"""How long restic may take to let go of its lock when it is ended."""
LAST_LINES = 4
"""How many of its last lines an error has."""
MISSING = "Is there a repository at the following location?"
"""What restic says where a repository was not made yet."""
LOCKED = "already locked"
Pause = Callable[[str], Awaitable[None]]


class VolumeBackups:
    """The backups of one node. *pause* and *resume* take the ID of a container."""

    def __init__(self, migration: VolumeMigration, state: Path, pause: Pause, resume: Pause) -> None:
        self._migration, self._volumes = migration, migration.volumes
        self._state = state
        self._pause, self._resume = pause, resume

    async def carry_out(self, order: BackupOrder) -> BackupReport:
        """Do what *order* says. Raises AgentError with restic's words, ConflictError."""
        works = {
            "backup": self._backup,
            "snapshots": self._snapshots,
            "restore": self._restore,
            "verify": self._verify,
            "forget": self._forget,
        }
        return await works[order.verb](order)

    async def _backup(self, order: BackupOrder) -> BackupReport:
        self._volumes.get(order.volume)
        words = ["backup", "--host", order.owner, "--tag", f"node={os.uname().nodename}", "/volume"]
        async with self._standing_still(order.paused):
            failpoint("backup.begun")
            lines = await self._made(order.repository, words, self._volumes.data(order.volume))
        summary: dict[str, Any] = next((one for one in lines if one.get("message_type") == "summary"), {})
        return BackupReport(
            snapshot=str(summary.get("snapshot_id", ""))[:8],
            files=int(summary.get("total_files_processed", 0)),
            bytes=int(summary.get("total_bytes_processed", 0)),
            added=int(summary.get("data_added", 0)),
        )

    async def _snapshots(self, order: BackupOrder) -> BackupReport:
        found = await self._run(order.repository, ["snapshots", "--host", order.owner])
        return BackupReport(snapshots=tuple(_snapshot(one) for one in (found[0] if found else ())))

    async def _restore(self, order: BackupOrder) -> BackupReport:
        data = self._migration.incoming(order.volume) / "_data"
        await self._migration.discard(order.volume)
        return await self._fill(order, data)

    async def _verify(self, order: BackupOrder) -> BackupReport:
        """Bring a snapshot back to the side; restic reads all that it wrote once more, and compares."""
        beside = f"{order.volume}.verify"
        await self._migration.discard(beside)
        try:
            return await self._fill(order, self._migration.incoming(beside) / "_data")
        finally:
            await to_end(self._migration.discard(beside))

    async def _fill(self, order: BackupOrder, data: Path) -> BackupReport:
        taken = await self._named(order)
        await asyncio.to_thread(data.mkdir, mode=0o755, parents=True)
        failpoint("backup.restore")
        words = ["restore", taken.id, "--target", "/", "--verify"]
        await self._run(order.repository, words, volume=data, read_only=False)
        count, size = await asyncio.to_thread(_measure, data)
        return BackupReport(snapshot=taken.id, files=count, bytes=size, snapshots=(taken,))

    async def _named(self, order: BackupOrder) -> Snapshot:
        """The snapshot of this volume that *order* means. Raises AgentError where there is none."""
        found = (await self._snapshots(order)).snapshots
        chosen = found[-1:] if order.snapshot == "latest" else [s for s in found if s.id.startswith(order.snapshot)]
        if len(chosen) != 1:
            there = ", ".join(s.id for s in found[-5:]) or "none"
            raise ConflictError(f"there is no snapshot {quoted(order.snapshot)} of {quoted(order.owner)}; there is: {there}")
        return chosen[0]

    async def _forget(self, order: BackupOrder) -> BackupReport:
        rules = [word for rule, number in order.keep for word in (f"--keep-{rule}", str(number))]
        words = ["forget", "--host", order.owner, "--group-by", "host", *rules, "--prune"]
        try:
            await self._run(order.repository, words)
        except AgentError as error:
            if LOCKED not in str(error):
                raise
            await self._run(order.repository, ["unlock"])  # of one that was killed: only locks that nobody has renewed
            await self._run(order.repository, words)
        return BackupReport()

    async def _made(self, repository: Repository, words: Sequence[str], data: Path) -> list[Any]:
        """What `restic *words*` prints that reads *data*; the repository is made if there is none."""
        try:
            return await self._run(repository, words, volume=data)
        except AgentError as error:
            if MISSING not in str(error):
                raise
        await self._run(repository, ["init"])
        return await self._run(repository, words, volume=data)

    @contextlib.asynccontextmanager
    async def _standing_still(self, containers: Sequence[str]) -> AsyncIterator[None]:
        """Meanwhile *containers* are paused. One that is paused already, or has ended, stays so."""
        paused: list[str] = []
        try:
            for ident in containers:
                self._note([*paused, ident])
                with contextlib.suppress(ConflictError, NotFoundError):
                    await self._pause(ident)
                    paused.append(ident)
            yield
        finally:
            await to_end(self._wake(paused))
            self._note([])

    def _note(self, paused: Sequence[str]) -> None:
        """Remember what this agent has *paused*, for one that is started after a crash."""
        if paused:
            self._state.mkdir(mode=0o700, exist_ok=True)
            files.write_atomically(self._state / PAUSED, msgspec.json.encode(paused))
        else:
            (self._state / PAUSED).unlink(missing_ok=True)

    async def _wake(self, paused: Sequence[str]) -> None:
        for ident in paused:
            with contextlib.suppress(AgentError):
                await self._resume(ident)

    async def recover(self) -> None:
        """After a start of the agent: let go on what its predecessor had paused."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            await self._wake(msgspec.json.decode((self._state / PAUSED).read_bytes(), type=list[str]))
            self._note([])

    async def _run(
        self, repository: Repository, words: Sequence[str], *, volume: Path | None = None, read_only: bool = True
    ) -> list[Any]:
        """The lines of JSON that `restic *words*` prints. Raises AgentError."""
        restic = shutil.which("restic")
        if restic is None:
            raise AgentError("restic is not installed on this node: `apt-get install restic`")
        state = self._state / hashlib.sha256(repository.place.encode()).hexdigest()[:16]
        for folder in (state / "cache", state / "tmp", state / "nothing"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        order = _order(repository, restic, words, state, volume, read_only=read_only)
        child = await asyncio.create_subprocess_exec(
            *workers.command("restic", ()),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=workers.PROGRAMS,
            env=workers.environment(),
        )
        try:
            out, err = await child.communicate(msgspec.json.encode(order))
        finally:
            if child.returncode is None:
                await _end(child)
            files.remove_tree(state / "tmp")
        if child.returncode:
            raise AgentError(f"restic {words[0]}: {_last(err) or _last(out) or f'exit status {child.returncode}'}")
        return [found for line in out.splitlines() if (found := _parsed(line)) is not None]


async def _end(child: asyncio.subprocess.Process) -> None:
    """End restic so that it takes its lock away, if it does in time."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(ENDING_S):
            await child.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def _order(
    repository: Repository, restic: str, words: Sequence[str], state: Path, volume: Path | None, *, read_only: bool
) -> Mapping[str, Any]:
    """The order for the worker, in which restic's root is laid out."""
    places = {"volume": str(volume or state / "nothing"), "state": str(state)}
    environment = {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/state",
        "TMPDIR": "/state/tmp",
        "RESTIC_CACHE_DIR": "/state/cache",
        "RESTIC_PASSWORD_FILE": f"/{SECRET}/password",
        "RESTIC_REPOSITORY": repository.place,
    }
    given = {f"{SECRET}/password": repository.password, "etc/passwd": USERS, "etc/nsswitch.conf": SWITCH}
    options: list[str] = []
    if repository.place.startswith("/"):
        if not Path(repository.place).is_dir():
            raise AgentError(f"the folder {repository.place} of the repository is not on this node: make it, or mount it there")
        places["repository"] = repository.place
        environment["RESTIC_REPOSITORY"] = "/repository"
    if repository.place.startswith("sftp:"):
        given |= {f"{SECRET}/ssh_key": repository.ssh_key, f"{SECRET}/known_hosts": repository.known_hosts}
        options = ["-o", f"sftp.command={_ssh(repository.place)}"]
    if repository.rclone:
        given[f"{SECRET}/rclone.conf"] = repository.rclone
        environment["RCLONE_CONFIG"] = f"/{SECRET}/rclone.conf"
    return {
        "restic": restic,
        "words": [*options, "--json", *words],
        "places": places,
        "read_only": ["volume"] if read_only else [],
        "files": {name: base64.b64encode(data).decode() for name, data in given.items()},
        "environment": environment | _variables(repository.credentials),
    }


def _ssh(place: str) -> str:
    """The command that restic reaches an sftp server with: it believes known_hosts alone, and asks nothing."""
    server = place.removeprefix("sftp:").removeprefix("//")
    name, _, rest = server.partition("/") if place.startswith("sftp://") else server.partition(":")
    del rest
    host, _, port = name.partition(":")
    if not host or host.startswith("-") or any(c.isspace() or c in "'\"\\" for c in host):
        raise BadRequestError(
            f"{quoted(place)} is not a place of an sftp server: sftp:USER@HOST:/PATH, or sftp://USER@HOST:PORT//PATH"
        )
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f"/{SECRET}/known_hosts",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "15",
    }
    flags = " ".join(f"-o {key}={value}" for key, value in options.items())
    return f"ssh -F none -i /{SECRET}/ssh_key {flags} {f'-p {port} ' if port else ''}{host} -s sftp"


def _variables(credentials: bytes) -> dict[str, str]:
    """The variables of NAME=VALUE lines. Raises BadRequestError for one that is not for access to a repository."""
    out = {}
    for number, line in enumerate(credentials.decode(errors="replace").splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals or not name.startswith(VARIABLES):
            known = ", ".join(f"{v}…" for v in VARIABLES)
            raise BadRequestError(f"line {number} of the credentials is not a NAME=VALUE of a repository's ({known})")
        out[name] = value
    return out


def _snapshot(one: Mapping[str, Any]) -> Snapshot:
    node = next((t.partition("=")[2] for t in one.get("tags") or () if t.startswith("node=")), "")
    return Snapshot(id=str(one.get("short_id", "")), time=str(one.get("time", "")), node=node)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _last(output: bytes) -> str:
    lines = [shown(line) for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(lines[-LAST_LINES:])


def _measure(data: Path) -> tuple[int, int]:
    """How many entries *data* has, and how many bytes in files."""
    from agent.trees import pack
    from agent.trees.tree import Tree

    count = size = 0
    with Tree.at(data) as tree:
        for entry in pack.walk(tree):
            count += 1
            size += entry.status.st_size if entry.status.st_nlink and not entry.status.st_rdev else 0
    return count, size
