"""`python -m tests.faults [--only WORD]… [--write]`: runs cells on one lab of three servers with etcd; needs root."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Pystack, Stack, cluster_of
from tests.faults.table import Cell, put_into, render

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
LASTS_S, WANTED_S = 10.0, 90.0
"""How long a fault lasts that ends by itself, and how long all may take to be as wanted after it."""
FILE = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    restart: always
    environment: [VERSION=%d]
    ports: ["18090:80"]
    deploy: {replicas: %d, update_config: {order: start-first, parallelism: 2}}
  once:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    restart: always
    x-fence: strict
  all: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, restart: always, deploy: {mode: global}}
"""


class Faults:
    """What can fail in *lab*; each fault is begun, and ended after a while. *victim* is the node that it hits."""

    def __init__(self, lab: Pystack) -> None:
        self.lab = lab

    def lead(self) -> str:
        """The node of the server that leads."""
        for node in ("n1", "n2", "n3"):
            one = Pystack(self.lab.lab)
            one.environment = {
                **self.lab.environment,
                "PYSTACK_HOST": f"unix:///var/lib/pystack-lab/{self.lab.lab}/{node}/run/pystack.sock",
            }
            done = one("node", "ls", check=False)
            if done.returncode == 0 and "s ago" not in done.stderr:
                return node
        return "n1"

    def _fault(self, *words: str) -> None:
        self.lab("lab", "fault", "--name", self.lab.lab, *words, check=False)

    def _signal(self, node: str, number: str, *pattern: str) -> None:
        self.lab.on(node, "pkill", f"-{number}", *pattern, check=False)

    def table(self) -> dict[str, tuple[Callable[[str], None], Callable[[str], None]]]:
        """By name: how the fault begins on the leader's node (or, where it says so, on another), and how it ends."""

        def nothing(node: str) -> None:
            del node

        def other(node: str) -> str:
            return "n2" if node != "n2" else "n3"

        fault, signal = self._fault, self._signal
        return {
            "leading server killed": (lambda n: fault("kill", n, "server"), nothing),
            "leading server hangs": (lambda n: fault("pause", n, "server"), lambda n: fault("resume", n, "server")),
            "waiting server killed": (lambda n: fault("kill", other(n), "server"), nothing),
            "waiting server hangs": (
                lambda n: fault("pause", other(n), "server"),
                lambda n: fault("resume", other(n), "server"),
            ),
            "etcd member killed": (lambda n: signal(n, "KILL", "-x", "etcd"), nothing),
            "etcd member hangs": (lambda n: signal(n, "STOP", "-x", "etcd"), lambda n: signal(n, "CONT", "-x", "etcd")),
            "sshd killed": (lambda n: signal(other(n), "KILL", "-x", "sshd"), nothing),
            "conmon killed": (lambda n: signal(other(n), "KILL", "-x", "conmon"), nothing),
            "data path killed": (lambda n: signal(other(n), "KILL", "-f", "netplugins.dataplane"), nothing),
            "data path hangs": (lambda n: signal(other(n), "STOP", "-f", "netplugins.dataplane"), nothing),
            "power of a node cut": (lambda n: fault("crash", other(n)), lambda n: fault("boot", other(n))),
            "power of the leader's node cut": (lambda n: fault("crash", n), lambda n: fault("boot", n)),
            "a node cut off": (lambda n: fault("cut", other(n)), lambda n: fault("heal", other(n))),
            "the leader's node cut off": (lambda n: fault("cut", n), lambda n: fault("heal", n)),
        }


ACTIVITIES = ("idle", "update", "scale")


class Matrix:
    """The cells of one lab, one after the other."""

    def __init__(self, lab: Pystack, folder: Path) -> None:
        self.lab, self.stack = lab, Stack(lab, folder)
        self.faults = Faults(lab)
        self.version, self.replicas = 1, 4

    def cell(self, name: str, activity: str) -> Cell:
        """Begin the activity, have the fault, end it, and wait until all is as wanted."""
        begin, end = self.faults.table()[name]
        self.version += activity == "update"
        self.replicas = {4: 6, 6: 4}[self.replicas] if activity == "scale" else self.replicas
        self.stack.write(FILE % (self.version, self.replicas))
        node = self.faults.lead()
        work = self._up() if activity != "idle" else None
        time.sleep(0.5)
        begin(node)
        try:
            if work:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    work.wait(LASTS_S)
            else:
                time.sleep(LASTS_S)
        finally:
            end(node)
        ended = time.monotonic()
        try:
            return Cell(name, activity, *self._wait(work, ended))
        finally:
            if work and work.poll() is None:
                work.kill()
                work.wait()

    def _up(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "orchestrator", "-f", str(self.stack.file), "up", "-p", self.stack.name]
        return subprocess.Popen(
            words, env=self.lab.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _wait(self, work: subprocess.Popen[bytes] | None, ended: float) -> tuple[float, str]:
        """Seconds until all was as wanted, and what was not when the time was over. A cut off `up` is repeated once."""
        again = False
        while True:
            why = self._wrong()
            took = time.monotonic() - ended
            if not why:
                return took, ""
            if took > WANTED_S:
                return took, why
            if work and work.poll() not in (None, 0) and not again:
                again, work = True, self._up()
            time.sleep(0.5)

    def _wrong(self) -> str:
        """What is not as it should be, "" if all is."""
        done = self.stack.run("ps", "--format", "json", check=False)
        if done.returncode:
            return "ps fails"
        rows = json.loads(done.stdout)
        if wrong := [r["task"] for r in rows if r["state"] != "running"]:
            return f"{wrong[0]} does not run"
        count = {s: sum(r["service"] == s for r in rows) for s in ("web", "once", "all")}
        if count != {"web": self.replicas, "once": 1, "all": 3}:
            return f"there are {count}"
        nodes = {r["name"]: r for r in self.lab.json("node", "ls", "--format", "json")}
        for name, row in nodes.items():
            if row["state"] != "ready":
                return f"{name} is {row['state']}"
            root = Path(f"/var/lib/pystack-lab/{self.lab.lab}/{name}")
            here = {r["id"] for r in rows if r["node"] == name}
            if {p.name for p in (root / "containers").iterdir()} != here:
                return f"{name} has other containers"
            url = f"http://{row['underlay']}:18090"
            if not self.lab.on("outside", "curl", "-s", "-m", "3", url, check=False).strip():
                return f"the port of {name} does not answer"
        for row in (r for r in rows if r["service"] == "web"):
            words = ("exec", "-T", "--index", str(row["index"]), "web", "printenv", "VERSION")
            if self.stack.run(*words, check=False).stdout.strip() != str(self.version):
                return f"{row['task']} has another version"
        return ""


def main() -> int:
    """0 where every cell ended as wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="Cells whose `FAULT × ACTIVITY` has this word.")
    parser.add_argument("--write", action="store_true", help="Write the table to docs/reliability.md.")
    parser.add_argument("--budget", type=float, default=1e9, help="Begin no cell after so many seconds.")
    given = parser.parse_args()
    cells: list[Cell] = []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, cluster_of(3, servers=3) as lab:
        matrix = Matrix(lab, Path(folder))
        matrix.stack.up(FILE % (matrix.version, matrix.replicas))
        for name in matrix.faults.table():
            for activity in ACTIVITIES:
                label = f"{name} × {activity}"
                if given.only and not any(word in label for word in given.only):
                    continue
                if time.monotonic() - begun > given.budget:
                    break
                cell = matrix.cell(name, activity)
                cells.append(cell)
                print(f"{label}: {cell.problem or f'{cell.seconds:.1f} s'}", flush=True)
        matrix.stack.down()
    text = render(cells, ACTIVITIES)
    print(text)
    if given.write:
        DOCUMENT.write_text(put_into(DOCUMENT.read_text(), text))
    return any(c.problem for c in cells)


if __name__ == "__main__":
    sys.exit(main())
