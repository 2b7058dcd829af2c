"""Limits of CPU, memory, processes and disks against what is measured; a section of docs/limits.md for each version of control
groups. `bash tests/vm/run --bench resources` measures version 2 in a virtual machine, and brings the page back.

Everything is as the kernel counts it: the bytes and operations of the container's control group over a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agent import cgroups
from agent.contract.times import seconds_of
from bench.environment import Environment, environment
from bench.page import replace_section
from bench.rows import Row, row, size

SECONDS = size(5, 1)
RATES = ((1, 100), (10, 1000))[: size(2, 1)]
"""MB a second, and operations a second."""
VERSION = 2 if cgroups.unified() else 1
MIB = 1 << 20
IMAGE_MIB = 256
RESOURCES = """
services:
  cpu: {image: busybox, command: sh -c "while :; do :; done", cpus: 0.25, stop_signal: SIGKILL}
  memory: {image: busybox, command: sleep 1000, mem_limit: 64m, memswap_limit: 64m, stop_grace_period: 0s}
  pids: {image: busybox, command: sleep 1000, pids_limit: 50, stop_grace_period: 0s}
"""
DISK = """
x-one: &one {{image: busybox, command: sleep 1000, stop_grace_period: 0s, volumes: ["data:/data"]}}
services:
  a: {{<<: *one, blkio_config: {{{one}}}}}
  b: {{<<: *one, blkio_config: {{{two}}}}}
volumes: {{data: {{driver_opts: {{type: ext4, device: {device}}}}}}}
"""
SIZES = """
services:
  layer: {image: busybox, command: sleep 1000, stop_grace_period: 0s, storage_opt: {size: 16m}}
  volume: {image: busybox, command: sleep 1000, stop_grace_period: 0s, volumes: ["data:/data"]}
volumes: {data: {driver_opts: {size: 24m}}}
"""
EATER = "head -c 200000000 /dev/zero | tail -n 1 | wc -c"
FORKS = "for n in $(seq 100); do sleep 20 & done; wait"


class Limit(NamedTuple):
    """A limit of disks: its *key* in a stack file, *way* and *words* for dd, and which statistics count it."""

    key: str
    op: str
    words: tuple[str, ...]
    table: str


READ, WRITE = (
    ("if=/data/file", "of=/dev/null", "iflag=direct"),
    ("if=/dev/zero", "of=/data/file", "oflag=direct", "conv=notrunc"),
)
BPS, IOPS = ("bs=64k", "count=4000"), ("bs=4k", "count=60000")
LIMITS = (
    Limit("device_read_bps", "read", (*READ, *BPS), "io_service_bytes_recursive"),
    Limit("device_write_bps", "write", (*WRITE, *BPS), "io_service_bytes_recursive"),
    Limit("device_read_iops", "read", (*READ, *IOPS), "io_serviced_recursive"),
    Limit("device_write_iops", "write", (*WRITE, *IOPS), "io_serviced_recursive"),
)


def measure() -> dict[str, Row]:
    """Rows of each limit: measured, against what was asked for. Writes docs/limits.md where all is measured in full."""
    with environment(disk="512m") as made:
        found = of(made)
    if SECONDS > 1:
        write(found)
    return found


def of(made: Environment) -> dict[str, Row]:
    """The rows, in the lab *made*."""
    found = Processes(made, RESOURCES).rows()
    with loop(made.root / "loop") as device:
        found |= Disks(made, device).rows()
    return {f"v{VERSION}_{name}": one for name, one in (found | _sizes(made)).items()}


@contextlib.contextmanager
def loop(image: Path) -> Iterator[str]:
    """A block device with an ext4 file system in the file *image*, which goes at the end."""
    with image.open("wb") as file:
        file.truncate((IMAGE_MIB + 64) * MIB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image], check=True)
    words = ["losetup", "--direct-io=on", "-f", "--show", str(image)]  # else the page cache answers, and no weight counts
    device = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
        image.unlink()


class Stack:
    """A stack of the lab *made*, from the text of its file."""

    def __init__(self, made: Environment, text: str) -> None:
        self.made = made
        self.file = made.root / "resources.yml"
        self.pystack = [".venv/bin/pystack", "-f", str(self.file)]
        self.up(text)

    def up(self, text: str) -> None:
        """Bring it up as *text* says."""
        self.file.write_text(text)
        self.made.pystack(*self.pystack[1:], "up")
        words = [*self.pystack, "ps", "--format", "json"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=self.made.environment)
        self.tasks = {r["service"]: r for r in json.loads(done.stdout)}

    def down(self) -> None:
        """Take it down, with its volumes."""
        self.made.pystack(*self.pystack[1:], "down", "-v")

    def stats(self, service: str) -> dict[str, Any]:
        """Docker's statistics of the task of *service*."""
        task = self.tasks[service]
        path = f"/v1/nodes/{task['node']}/engine/containers/{task['id']}/stats?stream=0&one-shot=1"
        words = [
            "curl",
            "-sf",
            "--unix-socket",
            self.made.environment["PYSTACK_HOST"].removeprefix("unix://"),
            f"http://x{path}",
        ]
        return dict(json.loads(subprocess.run(words, capture_output=True, check=True).stdout))

    def at(self, service: str) -> tuple[float, dict[str, Any]]:
        """Seconds since 1970 at which the statistics of *service* were read, and they: the answer may come late."""
        now = self.stats(service)
        return seconds_of(now["read"]), now

    def begin(self, service: str, *command: str) -> subprocess.Popen[bytes]:
        """Start *command* in the task of *service*; its output is discarded."""
        quiet = subprocess.DEVNULL
        words = [*self.pystack, "exec", "-T", service, *command]
        return subprocess.Popen(words, stdout=quiet, stderr=quiet, env=self.made.environment)

    def run(self, service: str, *command: str) -> str:
        """What *command* says in the task of *service*, however it ends."""
        words = [*self.pystack, "exec", "-T", service, *command]
        return subprocess.run(words, capture_output=True, text=True, env=self.made.environment, check=False).stdout


class Processes(Stack):
    """Limits of CPU, memory and processes."""

    def rows(self) -> dict[str, Row]:
        """What a busy loop gets of a quarter of a CPU, what an eater of 200 MB gets of 64 MiB, how many processes of 100 there
        are where 50 may be."""
        began, before = self.at("cpu")
        time.sleep(SECONDS)  # what is measured is a rate
        ended, after = self.at("cpu")
        used = (_cpu(after) - _cpu(before)) / 1e9 / (ended - began)
        most = self._most_memory()
        with self.begin("pids", "sh", "-c", FORKS) as forks:
            count = 0
            for _ in range(100):
                now = self.stats("pids")["pids_stats"]["current"]
                if now == count > 2:
                    break
                count = now
                time.sleep(0.2)
            forks.kill()
        self.down()
        return {
            "cpu_quarter": row(used, 0.25, "CPUs"),
            "memory_64": row(most / MIB, 64, "MiB"),
            "pids_50": row(count, 50, "processes"),
        }

    def _most_memory(self) -> int:
        """The most bytes that the eater had: the kernel's own count, or where it has none (version 2 before Linux 5.19) the
        most that was seen."""
        most = 0
        with self.begin("memory", "sh", "-c", EATER) as eater:  # it ends by the limit
            while eater.poll() is None:
                now = self.stats("memory")["memory_stats"]
                most = max(most, int(now.get("max_usage", 0)), int(now.get("usage", 0)))
        return max(most, int(self.stats("memory")["memory_stats"].get("max_usage", 0)))


def _cpu(stats: dict[str, Any]) -> int:
    return int(stats["cpu_stats"]["cpu_usage"]["total_usage"])


class Disks(Stack):
    """Limits of the disk *device*, each asked for by the volume that lies on it and changed while the tasks run."""

    def __init__(self, made: Environment, device: str) -> None:
        self.device = device
        self.scheduler = Path(f"/sys/block/{Path(device).name}/queue/scheduler")
        super().__init__(made, DISK.format(device=device, one="", two=""))

    def rows(self) -> dict[str, Row]:
        """What passes by direct reads and writes at each limit, and the share of the heavier of two."""
        self.run("a", "dd", "if=/dev/zero", "of=/data/file", "bs=1M", f"count={IMAGE_MIB}", "conv=fsync")
        found = {}
        for limit in LIMITS:
            for megabytes, operations in RATES:
                rate = megabytes * 1_000_000 if limit.key.endswith("bps") else operations
                unit, scale = ("MB/s", 1e6) if limit.key.endswith("bps") else ("1/s", 1.0)
                self.up(DISK.format(device=self.device, two="", one=f"{limit.key}: [{{path: data, rate: {rate}}}]"))
                got = self._rates(limit, "a")["a"]
                found[f"{limit.key}_{rate}"] = row(got / scale, rate / scale, unit, "higher")
        if "bfq" in self.scheduler.read_text():
            before = next(word for word in self.scheduler.read_text().split() if word.startswith("[")).strip("[]")
            self.scheduler.write_text("bfq")
            self.up(DISK.format(device=self.device, one="weight: 800", two="weight: 200"))
            got_by = self._rates(LIMITS[0], "a", "b")
            total = sum(got_by.values()) or 1.0  # a smoke run may be over before anything was read
            found["weight_800"] = row(100 * got_by["a"] / total, 80, "% of two")
            self.down()
            self.scheduler.write_text(before)
        else:
            self.down()
        return found

    def _rates(self, limit: Limit, *services: str) -> dict[str, float]:
        """What each of *services*, at work at the same time, does in a second of what *limit* counts."""
        loop = f"for n in 1 2 3 4; do busybox timeout {SECONDS + 6} dd {' '.join(limit.words)} & done; wait"
        at_work = [self.begin(s, "sh", "-c", loop) for s in services]  # one request at a time leaves gaps on a busy machine
        time.sleep(2)  # until all are at work
        before = [self.at(s) for s in services]
        time.sleep(SECONDS)
        after = [self.at(s) for s in services]
        for one in at_work:
            one.wait()
        pairs = zip(services, before, after, strict=True)
        return {s: (self._count(limit, new) - self._count(limit, old)) / (end - begin) for s, (begin, old), (end, new) in pairs}

    def _count(self, limit: Limit, stats: dict[str, Any]) -> int:
        number = Path(self.device).stat().st_rdev
        device = os.major(number), os.minor(number), limit.op
        rows = stats["blkio_stats"][limit.table] or ()
        return sum(r["value"] for r in rows if (r["major"], r["minor"], r["op"].lower()) == device)


def _sizes(made: Environment) -> dict[str, Row]:
    """What fits into a writable layer of 16 and a volume of 24 MiB; nothing where the disk of the node keeps no sizes."""
    words = [".venv/bin/pystack", "node", "inspect", "n1"]
    if "project-quota" not in subprocess.run(words, capture_output=True, text=True, check=True, env=made.environment).stdout:
        return {}
    stack, found = Stack(made, SIZES), {}
    for service, folder, asked in (("layer", "/srv", 16), ("volume", "/data", 24)):
        text = stack.run(service, "sh", "-c", f"dd if=/dev/zero of={folder}/fill bs=64k count=2000 2>&-; wc -c < {folder}/fill")
        found[f"size_{service}"] = row(int(text) / MIB, asked, "MiB")
    stack.down()
    return found


NAMES = {
    "cpu_quarter": "cpus",
    "memory_64": "mem_limit",
    "pids_50": "pids_limit",
    "weight_800": "blkio_config.weight: 800 beside 200",
    "size_layer": "storage_opt.size",
    "size_volume": "driver_opts.size",
}


def write(found: dict[str, Row]) -> None:
    """The section of this version."""
    table = ["| limit | asked | measured | differs by |", "|---|---|---|---|"]
    for key, one in found.items():
        name = key.removeprefix(f"v{VERSION}_")
        what = NAMES.get(name) or f"blkio_config.{name.rpartition('_')[0]}"
        got, asked, ratio = (float(one[key]) for key in ("value", "baseline", "ratio"))
        table.append(f"| `{what}` | {asked:g} {one['unit']} | {got:.4g} | {100 * (ratio - 1):+.1f} % |")
    replace_section(f"resources, version {VERSION}", "\n".join(table))


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["resources", *sys.argv[1:]]))
