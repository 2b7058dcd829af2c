"""`make bench`: all benchmarks, side by side in a lab; writes build/bench.json. `python -m bench [--smoke] [NAME…]` runs some,
`python -m bench compare OLD.json NEW.json` says what moved beyond noise.

A benchmark that fails is reported, and the others run; the exit status is 1 then."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import rows

IN_ONE_LAB = ("up", "layers", "unpack", "loading", "building", "idle", "host", "cli", "streams", "presets")
"""One after the other on the same node: `idle` is measured after heavy use."""
ALONE = (
    "overlay",
    "limits",
    "resources",
    "bombs",
    "placement",
    "counters",
    "scale",
    "schedules",
    "alternatives",
    "netplane",
    "lan",
    "store",
    "gitops",
    "fleet",
    "backup",
    "ingress",
    "scrape",
    "paint",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that *arguments* name, or all, print their rows and write them as JSON. Returns 1 if one failed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["compare"]:
        from bench.compare import main as compare

        return compare(words[1:])
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--smoke", action="store_true", help="as little as shows that each runs; the figures mean nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*IN_ONE_LAB, *ALONE))}; none: all")
    parser.add_argument("-o", type=Path, metavar="FILE", help="where the figures go; without, build/bench.json if all run")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="each so many times; `compare` wants five")
    wanted = parser.parse_args(words)
    if unknown := [n for n in wanted.names if n not in (*IN_ONE_LAB, *ALONE)]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join((*IN_ONE_LAB, *ALONE))}")
    os.chdir(Path(__file__).parents[1])  # they call .venv/bin/pystack
    if wanted.smoke:
        os.environ[rows.SMOKE] = "1"  # before they are imported: they read it as they define their sizes
    names = wanted.names or [*IN_ONE_LAB, *ALONE]
    path = wanted.o or (None if wanted.smoke or wanted.names else Path("build/bench.json"))
    kept: dict[str, list[rows.Row]] = {}
    failed: list[str] = []

    def run(name: str, *lab: object) -> None:
        try:
            found = importlib.import_module(f"bench.{name}").measure(*lab)
        except Exception:  # the others are to run all the same
            traceback.print_exc()
            failed.append(name)
            return
        rows.show(found)
        for row, figures in found.items():
            kept.setdefault(row, []).append(figures)
        if path:
            rows.write(
                {row: rows.joined(runs) for row, runs in kept.items()}, path
            )  # at once: what was measured is kept even if the next one fails

    for _ in range(max(1, wanted.runs)):
        _round(names, run)
    if failed:
        print(f"failed: {', '.join(dict.fromkeys(failed))}")
    return 1 if failed else 0


def _round(names: Sequence[str], run: Callable[..., None]) -> None:
    """Each benchmark of *names* once."""
    with contextlib.ExitStack() as stack:
        together = [n for n in IN_ONE_LAB if n in names]
        if together:
            from bench.environment import environment

            made = stack.enter_context(environment())
        for name in together:
            run(name, made)
    for name in (n for n in ALONE if n in names):
        run(name)


if __name__ == "__main__":
    raise SystemExit(main())
