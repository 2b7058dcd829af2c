"""`python -m tests.outages sidecar|drain|failover [--restarts N] [--replacements N] [--rounds N]`: what is lost; needs root."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from tests.conftest import Stack, cluster_of
from tests.outages import drain, failover, sidecar


def main() -> int:
    """0 where nothing was lost that should not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("sidecar", "drain", "failover"))
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--replacements", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.what == "failover":
        with tempfile.TemporaryDirectory() as folder, cluster_of(3, servers=3) as lab:
            return _failover(failover.measured(Stack(lab, Path(folder)), given.rounds))
    with tempfile.TemporaryDirectory() as folder, cluster_of(1 if given.what == "sidecar" else 3) as lab:
        stack = Stack(lab, Path(folder))
        try:
            if given.what == "sidecar":
                return _sidecar(sidecar.measured(stack, given.restarts, given.replacements))
            return _drain(drain.measured(stack, given.rounds))
        finally:
            stack.down()


def _sidecar(seen: sidecar.Outage) -> int:
    last = [f"{s:.2f}" for s in seen.settled_s[-3:]]
    print(f"{seen.absences} absences of the owner, {seen.requests} requests to its user, {seen.failed} failed")
    print(f"failed outside of an absence and the {sidecar.SETTLING_S:.0f} s after it: {len(seen.outside)}")
    if seen.settled_s:
        print(f"last failure after a start: median {statistics.median(seen.settled_s):.2f} s, then {', '.join(last)} s")
    return 1 if seen.outside else 0


def _drain(seen: drain.Lost) -> int:
    for name, count in sorted(seen.requests.items()):
        print(f"{name}: {count} requests")
    print(f"{seen.changes} changes, {sum(seen.requests.values())} requests, {len(seen.lost)} lost")
    for what, after in seen.by_change.items():
        print(f"  {what}: {len(after)} lost, {min(after):.2f} to {max(after):.2f} s after it began")
    for line in (*seen.lost[:20], *dict.fromkeys(seen.servers)):
        print(f"  {line}")
    return 1 if seen.lost else 0


def _failover(seen: failover.Failover) -> int:
    for what, times in (("its server killed", seen.killed_s), ("its machine gone", seen.gone_s)):
        print(f"{what}: led again after {statistics.median(times):.2f} s (median of {len(times)}), {max(times):.2f} s at most")
    for what, times in (("a machine gone", seen.elsewhere_s), ("the leader's machine gone", seen.of_leader_s)):
        print(f"{what}: its tasks run elsewhere after {statistics.median(times):.2f} s (median), {max(times):.2f} s at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
