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
"""Files that lxcfs(1) shows a container in place of the kernel's."""


def covered(pid: int) -> str:
    """The path in the /proc of the process *pid* that is covered by a mount other than ours; "" if none is.

    A container that could mount over /proc would decide what a runtime reads and writes there, labels of AppArmor and SELinux
    among it (CVE-2019-16884, CVE-2023-27561). A symbolic link, in an image or in a volume that others change, can lead a mount
    there, so the result is checked."""
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
