"""Unpacking a layer, checked and kept, as a pull does it, against GNU tar alone: one of large files, one of many small ones."""

from __future__ import annotations

import gzip
import io
import random
import resource
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from agent.trees import workers
from agent.trees.removal import remove_tree
from bench.environment import Environment
from bench.rows import Row, row, size

LARGE, COUNT, ROUNDS = size(200, 2), size(20_000, 200), size(7, 1)


def layer(files: int, bytes_each: int) -> bytes:
    """A gzip layer of *files* files, 100 a directory, half of each random: as programs and libraries compress."""
    dice = random.Random(7)
    out = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for number in range(files):
            info = tarfile.TarInfo(f"srv/{number // 100}/{number}")
            info.size = bytes_each
            archive.addfile(info, io.BytesIO(dice.randbytes(bytes_each // 2) + b"x" * (bytes_each - bytes_each // 2)))
    return out.getvalue()


def _took(command: list[str], path: Path, target: Path) -> tuple[float, float]:
    """Seconds by the clock and of processors."""
    target.mkdir()
    before, began = _processor_time(), time.perf_counter()
    with path.open("rb") as file:
        subprocess.run(command, stdin=file, check=True, capture_output=True, cwd=workers.PROGRAMS)
    took = time.perf_counter() - began, _processor_time() - before
    remove_tree(target)
    return took


def _processor_time() -> float:
    """Of the children that have ended, in user mode and in the kernel."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(environment: Environment) -> dict[str, Row]:
    """Rows of both layers, in seconds and in seconds of processors: unpacked by the layer process, and by GNU tar."""
    rows = {}
    for name, files, bytes_each in (("large", LARGE, 1 << 20), ("small", COUNT, 1000)):
        path, target = environment.root / f"{name}.tar.gz", environment.root / f"unpack-{name}"
        path.write_bytes(layer(files, bytes_each))
        ours = workers.command("layer", (str(target), "", "", str(environment.root / "kept"), "trusted.overlay.opaque", ""))
        tar = ["tar", "--extract", "--gzip", "--same-permissions", f"--directory={target}"]
        took: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        for _ in range(ROUNDS):  # in turns: the machine's mood is the same for both
            took[True].append(_took(ours, path, target))
            took[False].append(_took(tar, path, target))
        for number, unit in enumerate(("", "_cpu")):
            own, rival = (statistics.median(t[number] for t in took[who]) for who in (True, False))
            rows[f"unpack_{name}{unit}"] = row(own, rival)
        path.unlink()
    return rows


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["unpack", *sys.argv[1:]]))
