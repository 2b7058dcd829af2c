"""`python -m bench compare OLD.json NEW.json`: what moved beyond noise, of figures of several runs each (`--runs 5`).

A row moved if a rank test (Mann and Whitney) finds its ratios of the two files different at LEVEL, and their medians differ by
LEAST at least. Rows are many and each is tested by itself: of a hundred that did not move, one may be named."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

LEVEL, LEAST = 0.01, 0.03
FEWEST = 5
"""Runs of each side: fewer show no difference at that level."""
EXACT = 200_000
"""Arrangements that are all looked at; of more there is a sample."""


class Comparison(NamedTuple):
    """One row in both files: medians of its ratio, the change from the one to the other with its 95 % interval, and whether it
    is beyond noise (None: too few runs to tell) and for the worse."""

    name: str
    old: float
    new: float
    change: float
    low: float
    high: float
    moved: bool | None
    worse: bool


def compared(name: str, old: Sequence[float], new: Sequence[float], *, lower_is_better: bool) -> Comparison:
    """The ratios *old* and *new* of the row *name*."""
    before, after = statistics.median(old), statistics.median(new)
    change = after / before - 1 if before else 0.0
    dice = random.Random(name)
    drawn = sorted(_drawn(dice, new) / max(_drawn(dice, old), 1e-12) - 1 for _ in range(2000))
    moved = None
    if min(len(old), len(new)) >= FEWEST:
        moved = abs(change) >= LEAST and rank_test(old, new) <= LEVEL
    worse = bool(moved) and (change > 0) == lower_is_better
    return Comparison(name, before, after, change, drawn[50], drawn[-50], moved, worse)


def _drawn(dice: random.Random, values: Sequence[float]) -> float:
    return statistics.median(dice.choices(values, k=len(values)))


def rank_test(one: Sequence[float], other: Sequence[float]) -> float:
    """How likely ranks at least as far apart are where both have the same distribution; two-sided. All arrangements are counted
    where they are few, else as many of them drawn. Source: Mann and Whitney, 1947."""
    values = [*one, *other]
    ranks = [sum(o < v for o in values) + (sum(o == v for o in values) + 1) / 2 for v in values]
    middle = len(one) * (len(values) + 1) / 2
    found = abs(sum(ranks[: len(one)]) - middle) - 1e-9
    if math.comb(len(values), len(one)) <= EXACT:
        sums = [sum(some) for some in itertools.combinations(ranks, len(one))]
    else:
        dice = random.Random(len(values))
        sums = [sum(dice.sample(ranks, len(one))) for _ in range(EXACT // 10)]
    return sum(abs(total - middle) >= found for total in sums) / len(sums)


def samples(row: dict[str, Any]) -> list[float]:
    """The ratios of a row's runs."""
    return [float(value) for value in row.get("samples") or [row["ratio"]]]


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[Comparison]:
    """Every row that both have, those that moved most first."""
    rows = [
        compared(name, samples(old[name]), samples(new[name]), lower_is_better=new[name]["better"] == "lower")
        for name in old.keys() & new.keys()
    ]
    return sorted(rows, key=lambda r: (not r.moved, -abs(r.change), r.name))


def main(arguments: Sequence[str]) -> int:
    """Print a line for each row; 1 if one is worse beyond noise."""
    parser = argparse.ArgumentParser(prog="python -m bench compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    given = parser.parse_args(arguments)
    old, new = (json.loads(path.read_text()) for path in (given.old, given.new))
    rows = compare(old, new)
    for r in rows:
        verdict = "too few runs" if r.moved is None else ("worse" if r.worse else "better") if r.moved else "as before"
        print(f"{r.name}: {r.old:.3f} → {r.new:.3f}, {r.change:+.1%} ({r.low:+.1%} … {r.high:+.1%}), {verdict}")
    for name in sorted(old.keys() ^ new.keys()):
        print(f"{name}: only in {given.old if name in old else given.new}")
    return 1 if any(r.worse for r in rows) else 0
