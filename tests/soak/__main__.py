"""`python -m tests.soak [--hours H] [--seed N] [--write]`: random work and faults on one lab, for hours; needs root.

A round goes through all that users do in the fault matrix, every second time while something fails that is drawn by lot; then
the stacks are as they were at first, and what the machines hold is counted.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.conftest import cluster_of
from tests.faults.__main__ import DISK, DOCUMENT, Matrix
from tests.faults.hazards import HAZARDS
from tests.faults.machines import NODES
from tests.faults.table import put_into
from tests.faults.work import ACTIVITIES
from tests.soak.figures import ends, grown, held

BEGIN, END = "<!-- soak -->", "<!-- end of the soak -->"
CALM = "nothing fails"


def rounds(matrix: Matrix, hours: float, chance: random.Random) -> tuple[list[Counter[str]], list[str], int]:
    """What was held after each round, what did not end as it should, and how many cells there were."""
    samples, problems, cells = list[Counter[str]](), list[str](), 0
    until = time.monotonic() + hours * 3600
    while time.monotonic() < until or not samples:
        for activity in ACTIVITIES:
            name = chance.choice([CALM, chance.choice(sorted(HAZARDS))])
            cell = matrix.cell(name, activity)
            cells += 1
            print(f"{name}, {activity}: {cell.problem or f'{cell.seconds:.1f} s'}", flush=True)
            if cell.problem:
                matrix.save_evidence(cell)
                return samples, [f"{name}, {activity}: {cell.problem}"], cells
        matrix.settle()
        samples.append(held(matrix.machines))
        print(json.dumps(samples[-1]), flush=True)
    problems += grown(samples)
    return samples, problems, cells


def table(samples: list[Counter[str]], hours: float, cells: int) -> str:
    """The figures of all machines together, at both ends."""
    lines = ["| what all machines hold | first rounds | last rounds |", "|---|---|---|"]
    lines += [f"| {name} | {first:,.0f} | {last:,.0f} |" for name, (first, last) in ends(samples).items()]
    return "\n".join(
        [*lines, "", f"{hours:.1f} hours, {cells} changes of stacks in {len(samples)} rounds on {len(NODES)} nodes."]
    )


def main() -> int:
    """0 where all went on, and nothing grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="Write the figures to docs/reliability.md.")
    given = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, cluster_of(len(NODES), servers=3, disk=DISK) as lab:
        samples, problems, cells = rounds(Matrix(lab, Path(folder)), given.hours, random.Random(given.seed))
    text = table(samples, (time.monotonic() - begun) / 3600, cells) if samples else ""
    print("\n".join([text, *problems]))
    if given.write and samples:
        DOCUMENT.write_text(put_into(DOCUMENT.read_text(), text, BEGIN, END))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
