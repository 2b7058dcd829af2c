"""`python -m tests.simulator`: many seeds, or one of them again."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.simulator.bugs import BUGS, put_in
from tests.simulator.scenario import Outcome, run


def one(seed: int, bug: str = "") -> Outcome:
    """One seed, in a folder of its own, with a *bug* of BUGS if it is named."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, put_in(bug) if bug else contextlib.nullcontext():
        return run(seed, Path(folder))


def main() -> int:
    """0 where all that must hold holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="This one alone, with all that happened.")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--bug", choices=sorted(BUGS), default="", help="Put this fault in: it must be found.")
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of names have one order then: a seed is the same again
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulator", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    if given.seed is not None:
        outcome = one(given.seed, given.bug)
        print("\n".join(outcome.history))
        print(f"seed {given.seed}: {'; '.join(outcome.violations) or 'well'}, settled after {outcome.settled_s:g} s")
        return bool(outcome.violations)
    begun, bad, settled, ups = time.monotonic(), 0, [], 0
    with ProcessPoolExecutor(given.jobs) as pool:
        for outcome in pool.map(one, range(given.first, given.first + given.seeds), [given.bug] * given.seeds):
            settled.append(outcome.settled_s)
            ups += outcome.ups
            if outcome.violations:
                bad += 1
                print(f"seed {outcome.seed}: {'; '.join(outcome.violations)}", flush=True)
                if given.bug:
                    print(f"found with {len(settled)} seeds")
                    pool.shutdown(cancel_futures=True)
                    return 1
    settled.sort()
    print(
        f"{given.seeds} seeds, {bad} with violations, {ups} acknowledged ups; settled after {settled[len(settled) // 2]:g} s "
        f"(median), {settled[int(len(settled) * 0.99)]:g} s (p99); {time.monotonic() - begun:.0f} s"
    )
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
