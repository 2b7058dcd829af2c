"""`python -m tests.stacks [--only WORD]… [--kept FILE] [--budget S]`: lives of real stacks on a lab of one node; needs root.

Goes on where --kept says that it stopped, so that the whole can be run in parts."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import cluster_of
from tests.stacks import corpus

STEPS = ("load", "plan", "up", "no-op", "change", "no-op again", "down")


def table(rows: list[corpus.Lived]) -> str:
    """A line a stack, seconds a step, and how many came through."""
    lines = [f"{'stack':<56} services tasks " + " ".join(f"{s:>11}" for s in STEPS)]
    for row in rows:
        cells = " ".join(f"{row.seconds[s]:>9.1f} s" if s in row.seconds else f"{'-':>11}" for s in STEPS)
        lines.append(f"{row.stack:<56} {row.services:>8} {row.tasks:>5} {cells}  {row.problem or 'as wanted'}")
    good = sum(not r.problem for r in rows)
    return "\n".join([*lines, f"{good} of {len(rows)} stacks came through all steps"])


def main() -> int:
    """0 where every stack came through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="Stacks whose name has this word.")
    parser.add_argument("--kept", type=Path, help="Rows of earlier parts; those that came through are not tried again.")
    parser.add_argument("--budget", type=float, default=1e9, help="Begin no stack after so many seconds.")
    parser.add_argument("--nodes", type=int, default=1)
    given = parser.parse_args()
    kept = json.loads(given.kept.read_text()) if given.kept and given.kept.exists() else []
    rows = {r["stack"]: corpus.Lived(**r) for r in kept}
    chosen = [f for f in corpus.files() if not given.only or any(w in corpus.name_of(f) for w in given.only)]
    chosen = [f for f in chosen if not any(corpus.name_of(f) == n for n in (*corpus.IMPOSSIBLE, *corpus.NOT_STACKS))]
    chosen = [f for f in chosen if corpus.name_of(f) not in rows or rows[corpus.name_of(f)].problem]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, cluster_of(given.nodes) as lab:
        corpus.stand_in(lab)
        for row in corpus.lives(lab, chosen, Path(folder)):
            rows[row.stack] = row
            print(f"{row.stack}: {row.problem or f'{sum(row.seconds.values()):.1f} s'}", flush=True)
            if given.kept:
                given.kept.write_text(json.dumps([dataclasses.asdict(r) for r in rows.values()], indent=1))
            if time.monotonic() - begun > given.budget:
                break
    print(table(list(rows.values())))
    return any(r.problem for r in rows.values())


if __name__ == "__main__":
    sys.exit(main())
