"""Paths of /proc and /sys that a container may not see, or not write, and that /proc is the kernel's. Source: Docker's
documented defaults; proc_pid_mountinfo(5)."""

from __future__ import annotations

from pathlib import Path

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
REPLACED = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "net/dev",
        "slabinfo",
        "stat",
        "swaps",
        "uptime",
    )
)
"""What lxcfs(1) shows a container in the kernel's place."""


def covered(pid: int) -> str:
    """Where in the /proc of the process *pid* something lies that is neither the kernel's nor hides a path; "" for nowhere.

    Whoever has another /proc there decides what a runtime reads and writes in it, labels of AppArmor and SELinux among them
    (CVE-2019-16884, CVE-2023-27561). A link, in an image or in a volume that others change, can lead a mount there, so it is
    looked at what came of it."""
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        _, _, _, root, point, options, *_ = mount.split()
        if point != "/proc" and not point.startswith("/proc/"):
            continue
        kind = source.split()[0]
        hides = root == "/null" or (kind == "tmpfs" and "ro" in options.split(","))
        if kind != "proc" and point not in REPLACED and not (hides and point != "/proc"):
            return point
    return ""
