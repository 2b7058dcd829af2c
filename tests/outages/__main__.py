"""`python -m tests.outages sidecar|drain|failover|ingress|cron|switch|sets`: what is lost; needs root.

`--help` has the sizes."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.conftest import Stack, cluster_of
from tests.outages import cron, drain, failover, ingress, sets, sidecar, switch


def main() -> int:
    """0 where nothing was lost that should not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("sidecar", "drain", "failover", "ingress", "cron", "switch", "sets"))
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--replacements", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=100, help="rolling updates under requests by ingress")
    parser.add_argument("--moves", type=int, default=20, help="nodes that are drained under them")
    parser.add_argument("--losses", type=int, default=5, help="nodes that lose their power under them")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second, on new and on kept connections each")
    parser.add_argument("--schedules", type=int, default=100, help="that run at one moment, each second minute")
    parser.add_argument(
        "--set", choices=tuple(sets.SETS), default="etcd", help="which set goes through updates, drains and losses"
    )
    parser.add_argument("--drains", type=int, default=10, help="nodes that are drained under a set")
    given = parser.parse_args()
    if given.what == "failover":
        with tempfile.TemporaryDirectory() as folder, cluster_of(3, servers=3) as lab:
            return _failover(failover.measured(Stack(lab, Path(folder)), given.rounds))
    nodes = {"sidecar": 1, "cron": 1, "sets": 4}.get(given.what, 3)
    with tempfile.TemporaryDirectory() as folder, cluster_of(nodes) as lab:
        stack = Stack(lab, Path(folder))
        try:
            if given.what == "sidecar":
                return _sidecar(sidecar.measured(stack, given.restarts, given.replacements))
            if given.what == "ingress":
                return _ingress(ingress.measured(stack, given.rate, given.updates, given.moves, given.losses))
            if given.what == "sets":
                return _sets(sets.measured(stack, given.set, given.updates, given.drains, given.losses))
            if given.what == "switch":
                return _switch(switch.measured(stack, given.rate))
            if given.what == "cron":
                return _cron(cron.measured(stack, given.schedules, given.rounds))
            return _drain(drain.measured(stack, given.rounds))
        finally:
            stack.down()


def _switch(found: dict[str, Any]) -> int:
    lost = sum(count for answer, count in found["seen"].items() if answer not in ("one", "two"))
    print(f"{sum(found['seen'].values())} requests, {lost} lost; both versions answered for {found['switches_s']} s")
    return bool(lost)


def _cron(seen: cron.Lateness) -> int:
    print(f"{len(seen.late_s)} runs, {seen.missing} missing")
    if late := seen.late_s:
        p99 = late[math.ceil(len(late) * 0.99) - 1]
        print(f"late: median {statistics.median(late):.2f} s, p99 {p99:.2f} s, most {late[-1]:.2f} s")
    return bool(seen.missing)


def _sets(seen: sets.Seen) -> int:
    print(f"{seen.writes} writes, {seen.acknowledged} acknowledged")
    print("change  times  acknowledged meanwhile  longest pause: median, most")
    for what, pauses in seen.pauses_s.items():
        most = f"{statistics.median(pauses):.2f} s, {max(pauses):.2f} s"
        print(f"{what:6}  {len(pauses):5}  {seen.during[what]:22}  {most}")
    for member, lost in seen.lost.items():
        print(f"member {member}: {len(lost)} acknowledged writes lost", *lost[:10])
    for problem in seen.problems:
        print(problem)
    return 1 if any(seen.lost.values()) or seen.problems else 0


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
    print(", ".join(f"{what} {count} times" for what, count in seen.changes.items()))
    print(f"{seen.changes.total()} changes, {sum(seen.requests.values())} requests, {len(seen.lost)} lost")
    for what, after in seen.by_change.items():
        print(f"  {what}: {len(after)} lost, {min(after):.2f} to {max(after):.2f} s after it began")
    for line in (*seen.lost[:20], *dict.fromkeys(seen.servers)):
        print(f"  {line}")
    return 1 if seen.lost else 0


def _ingress(seen: ingress.Lost) -> int:
    """Only what a lost node had under way may be lost."""
    print(", ".join(f"{count} requests of {how}" for how, count in seen.requests.items()), f"in {seen.seconds:.0f} s")
    print(f"{seen.again} of them once more, on a kept connection that had been closed")
    for what, count in seen.changes.items():
        lost = seen.lost.get(what, [])
        print(f"{what}: {count}; {len(lost)} requests lost; the slowest took {seen.slowest_s.get(what, 0.0):.2f} s")
    for line in (line for lines in seen.lost.values() for line in lines[:30]):
        print(f"  {line}")
    print(f"of those lost with a node, {seen.before_loss} had begun before it was gone")
    return 1 if sum(len(lines) for lines in seen.lost.values()) > seen.before_loss else 0


def _failover(seen: failover.Failover) -> int:
    for what, times in (("its server killed", seen.killed_s), ("its machine gone", seen.gone_s)):
        print(f"{what}: led again after {statistics.median(times):.2f} s (median of {len(times)}), {max(times):.2f} s at most")
    for what, times in (("a machine gone", seen.elsewhere_s), ("the leader's machine gone", seen.of_leader_s)):
        print(f"{what}: its tasks run elsewhere after {statistics.median(times):.2f} s (median), {max(times):.2f} s at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
