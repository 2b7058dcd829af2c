"""What a machine of a lab holds, and whether that grew. Pure but for `held`."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from tests.faults.machines import NODES, Machines

SCRIPT = r"""
cd /
for p in /proc/[0-9]*; do
  a=$(tr '\0' ' ' < $p/cmdline 2>/dev/null)
  r=$(grep VmRSS $p/status 2>/dev/null | tr -dc 0-9); f=$(ls $p/fd 2>/dev/null | wc -l)
  case "$a" in
    *orchestrator.embedded*) k=server;; *"-m agent "*|*"-m agent") k=agent;; *netplugins.dataplane*) k="data path";;
    *) continue;;
  esac
  echo "KiB of memory: $k=${r:-0}"; echo "descriptors: $k=$f"
done
echo "processes=$(ls -d /proc/[0-9]* | wc -l)"
echo "links=$(ls /sys/class/net | wc -l)"
echo "mounts=$(wc -l < /proc/self/mounts)"
echo "lines of nftables=$(nft list ruleset | grep -v counter | wc -l)"
echo "control groups=$(find /sys/fs/cgroup -type d | wc -l)"
echo "KiB of disk, without logs and etcd=$(du -xsk --exclude etcd --exclude '*.log' $ROOT | cut -f1)"
echo "KiB of etcd=$(du -sk $ROOT/etcd/member/snap/db 2>/dev/null | cut -f1)"
"""
MAY_GROW = 0.15
"""What is more by less than this share of what it was is the same: allocators keep pages, and tasks are on other nodes."""
SMALL: Mapping[str, float] = {"KiB": 4096.0, "descriptors": 40.0}
"""What may be more in any case, by the first word of the name; of all others a few: where tasks are decides on them."""


def held(machines: Machines) -> Counter[str]:
    """What all machines hold together, by name."""
    out: Counter[str] = Counter()
    for node in NODES:
        said = machines.run(node, "sh", "-c", f"ROOT={machines.folder}/{node}; {SCRIPT}", check=True)
        for line in said.splitlines():
            name, _, number = line.rpartition("=")
            out[name] += int(number or 0)
    return out


def ends(samples: Sequence[Mapping[str, int]]) -> dict[str, tuple[float, float]]:
    """Of each figure its median in the first and in the last quarter of *samples*."""
    quarter = max(1, len(samples) // 4)
    names = sorted(set().union(*samples))
    return {
        name: (
            statistics.median(s.get(name, 0) for s in samples[:quarter]),
            statistics.median(s.get(name, 0) for s in samples[-quarter:]),
        )
        for name in names
    }


def grown(samples: Sequence[Mapping[str, int]]) -> list[str]:
    """What holds more at the end than it may."""
    out = []
    for name, (first, last) in ends(samples).items():
        small = SMALL.get(name.split()[0].rstrip(":"), 12.0)
        if last - first > max(small, first * MAY_GROW):
            out.append(f"{name}: {first:g}, and {last:g} at the end")
    return out
