"""Whether this processor can run numpy: its wheels use x86-64-v2, and a process that meets an instruction which its processor
lacks is killed by a signal, with no exception. QEMU's model qemu64, processors before 2009 and some Atoms lack it.

Source: x86-64 psABI, "Micro-Architecture Levels"; NumPy 2.4 release notes. Linux calls SSE3 pni.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

V2 = frozenset({"cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"})
"""Flags in /proc/cpuinfo of a processor that has x86-64-v2."""


@cache
def runs_numpy() -> bool:
    """Whether it is safe to import numpy here; true for what is not x86, and where Linux does not say."""
    try:
        return platform.machine() != "x86_64" or has_v2(Path("/proc/cpuinfo").read_text())
    except OSError:
        return True


def has_v2(cpuinfo: str) -> bool:
    """Whether each processor in the text of /proc/cpuinfo that lists flags has all of V2."""
    lists = [line.partition(":")[2].split() for line in cpuinfo.splitlines() if line.startswith("flags")]
    return all(set(flags) >= V2 for flags in lists)
