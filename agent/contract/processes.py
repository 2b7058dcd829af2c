"""Start times of processes, which tell a process from a later one with the same PID."""

from __future__ import annotations

from pathlib import Path


def start_time(pid: int) -> int:
    """Start time of *pid* in clock ticks since boot, 0 if it is gone or a zombie. Source: proc(5), stat field 22."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
