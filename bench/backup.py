"""Ten gigabytes of sparse files, backed up by restic on the node, and again after a little of them changed."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from pathlib import Path

from agent.contract.backup import BackupOrder, BackupReport, Repository
from agent.paths import Paths
from agent.volumes.backup import VolumeBackups
from agent.volumes.migration import VolumeMigration
from agent.volumes.volumes import Volumes
from bench.rows import Row, row, size

FILES, BYTES, WRITTEN = 10, size(1 << 30, 8 << 20), 1 << 20
"""So many files, each so long, of which so much is written."""


async def _pause(container: str) -> None:
    raise AssertionError(f"nothing is paused here, and not {container}")


def _write(file: Path, seed: int) -> None:
    with file.open("r+b" if file.exists() else "w+b") as out:
        out.truncate(BYTES)
        out.seek(random.Random(seed).randrange(BYTES - WRITTEN))
        out.write(random.Random(seed).randbytes(WRITTEN))


async def _measure(folder: Path) -> dict[str, Row]:
    paths = Paths(folder / "root", folder / "run", "b")
    paths.run.mkdir()
    volumes = Volumes(paths)
    backups = VolumeBackups(VolumeMigration(volumes, paths.run), paths.root / "backup", _pause, _pause)
    volumes.create("data")
    data, place = volumes.data("data"), folder / "repository"
    place.mkdir()
    for number in range(FILES):
        _write(data / f"file{number}", number)
    repository = Repository(place=str(place), password=b"a long sentence")

    async def taken() -> tuple[float, BackupReport]:
        began = time.perf_counter()
        report = await backups.carry_out(BackupOrder(verb="backup", repository=repository, owner="data", volume="data"))
        return time.perf_counter() - began, report

    whole_s, first = await taken()
    _write(data / "file3", 99)
    again_s, second = await taken()
    if first.bytes != FILES * BYTES or second.files != FILES:
        raise RuntimeError(f"not all was looked at: {first} {second}")
    if not WRITTEN <= second.added < 4 * WRITTEN:
        raise RuntimeError(f"of {WRITTEN} bytes that changed, {second.added} were kept")
    name = f"backup_{FILES * BYTES >> 20}_mib_sparse"
    return {
        name: row(whole_s, whole_s),
        f"{name}_again_after_1_mib": row(again_s, whole_s),
        f"{name}_added": row(second.added / WRITTEN, FILES * BYTES / WRITTEN, "MiB"),
    }


def measure() -> dict[str, Row]:
    """Seconds of the first backup and of the next, and what the next one adds; beside them, all of it again."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        return asyncio.run(_measure(Path(folder)))
