"""What benchmarks report, and how much they do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SMOKE = "PYSTACK_BENCH_SMOKE"
Row = dict[str, Any]


def row(value: float, baseline: float, unit: str = "s", better: str = "lower") -> Row:
    """One figure beside its *baseline*, both in *unit*; *better* is "lower" or "higher"."""
    return {"value": value, "unit": unit, "baseline": baseline, "ratio": value / baseline, "better": better}


def size(full: int, smoke: int) -> int:
    """How many there are of something: *full*, or *smoke* under `--smoke`, which shows that a benchmark runs, no more."""
    return smoke if os.environ.get(SMOKE) else full


def write(rows: dict[str, Row], path: Path) -> None:
    """Keep *rows* in *path*, as JSON."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n")


def joined(runs: list[Row]) -> Row:
    """The row of several runs: that of the middle one by its ratio, and the ratios of all as *samples*."""
    if len(runs) == 1:
        return runs[0]
    ordered = sorted(runs, key=lambda one: one["ratio"])
    return {**ordered[len(ordered) // 2], "samples": [one["ratio"] for one in runs]}


def show(rows: dict[str, Row]) -> None:
    """Print one line for each of *rows*."""
    for name, r in rows.items():
        print(f"{name}: {r['value']:.3f} {r['unit']}, baseline {r['baseline']:.3f}, ratio {r['ratio']:.2f}", flush=True)
