"""`python -m tests.fuzz [--inputs N] [--seed S] [--only AREA …] [--index I]`: exit status 1 where a fault was found."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import time

from tests.fuzz.area import Area, Fault, drive

AREAS = {
    "documents": "Documents",
    "dockerfiles": "Dockerfiles",
    "buildkit": "BuildKit",
    "registry": "Registries",
    "dns": "Packets",
    "archives": "Archives",
    "images": "Images",
    "api": "Requests",
    "server": "Server",
    "git": "Repositories",
}
"""Area → its class in the module of that name."""
INPUTS = 200_000


def area_of(name: str) -> Area:
    made: Area = getattr(importlib.import_module(f"tests.fuzz.{name}"), AREAS[name])()
    return made


def say(fault: Fault) -> None:
    print(f"FAULT {fault}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="in all areas together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=list(AREAS), help="an area; all of them where none is named")
    parser.add_argument("--index", type=int, help="only this input of the area that --only names")
    wish = parser.parse_args()
    if wish.index is not None and len(wish.only or ()) != 1:
        parser.error("--index is a number within one area: name it with --only")
    areas = [area_of(name) for name in wish.only or AREAS]
    whole = sum(a.share for a in areas)
    started, total, faults = time.monotonic(), 0, 0
    for area in areas:
        count = math.ceil(wish.inputs * area.share / whole)
        inputs = range(count) if wish.index is None else range(wish.index, wish.index + 1)
        done = drive(area, wish.seed, inputs, say)
        total += done.inputs
        faults += len(done.faults)
        print(
            f"{area.name:10} {done.inputs:8,} inputs, {done.refused:8,} refused, {done.seconds:7.1f} s, "
            f"peak {done.peak >> 20:4} MiB, {done.late} late, {len(done.faults)} faults",
            flush=True,
        )
    print(f"{'all':10} {total:8,} inputs, seed {wish.seed}, {time.monotonic() - started:.1f} s, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
