"""`python -m tests.faults [--only WORD]… [--labs N] [--budget S] [--kept FILE] [--write]`: the fault matrix; needs root.

Each lab has four nodes with disks of their own, three servers and etcd, and goes through all that can be done for one fault
after the other. A cell that does not end as it should leaves its evidence in build/faults, and what follows has a new lab.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import msgspec

from tests.conftest import Pystack, cluster_of
from tests.faults.hazards import CALM, HAZARDS, places
from tests.faults.machines import AGENT, NODES, Machines
from tests.faults.table import Cell, put_into, render
from tests.faults.work import ACTIVITIES, KEPT, Work

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
EVIDENCE = Path(__file__).parents[2] / "build" / "faults"
LASTS_S, WANTED_S, POLL_S = 12.0, 90.0, 0.3
"""How long a fault lasts, how long all may take to be as wanted after it, and how often that is looked at."""
DISK = "400m"


class Matrix:
    """The cells of one lab, one after the other."""

    def __init__(self, lab: Pystack, folder: Path) -> None:
        self.lab, self.machines = lab, Machines(lab.lab)
        self.work, self.said = Work(self.machines, folder), folder / "said"
        """What is wanted, and what the command that is under way writes."""
        self.said.touch()
        lab("-f", str(self.work.base), "up")
        lab("-f", str(self.work.base), "exec", "-T", "data", "sh", "-c", f"echo '{KEPT}' > /data/word")

    def cell(self, name: str, activity: str) -> Cell:
        """Begin the activity, have the fault, end it, and wait until all is as wanted."""
        where = places(self.machines)
        words, hazard = self.work.begin(activity), HAZARDS.get(name, CALM)
        client = self._begin(words) if words else None
        if client:  # the same moment each time, another one in each cell
            time.sleep(random.Random(f"{name} × {activity}").uniform(0.2, 2.5))
        begun = time.monotonic()
        hazard.begin(self.machines, where)
        try:
            if not hazard.brief:
                time.sleep(max(0.0, begun + LASTS_S - time.monotonic()))
        finally:
            hazard.end(self.machines, where)
        seconds, repeated, problem = self._wait(client, words, time.monotonic())
        if not problem and activity == "drain":
            self._activate()
        return Cell(name, activity, seconds, problem, repeated)

    def _begin(self, words: list[str]) -> subprocess.Popen[bytes]:
        with self.said.open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "orchestrator", *words],
                env=self.lab.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def _wait(self, client: subprocess.Popen[bytes] | None, words: list[str], ended: float) -> tuple[float, int, str]:
        """Seconds until all was as wanted, how often the command had to be repeated, and what was not when the time was over. A
        command that fails is given again, as its user would."""
        repeated = 0
        try:
            while True:
                why = self.work.wrong()
                took = time.monotonic() - ended
                if not why or took > WANTED_S:
                    return took, repeated, why
                if client and client.poll() not in (None, 0):
                    said = self.said.read_text(errors="replace").strip().splitlines()
                    print(f"  {' '.join(words[-3:])} ended with {client.returncode}: {said[-1:]}", flush=True)
                    repeated, client = repeated + 1, self._begin(words)
                time.sleep(POLL_S)
        finally:
            if client:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    client.wait(1)  # it is about to say that all is done
                client.kill()
                client.wait()

    def settle(self) -> None:
        """Have as many replicas as at first, evenly."""
        self.work.replicas = 4
        self.work.write()
        self.lab("-f", str(self.work.base), "up")
        self.lab("rebalance")

    def _activate(self) -> None:
        self.lab("node", "activate", AGENT)
        self.work.drained = False
        self.lab("-f", str(self.work.base), "up")
        self.lab("rebalance")

    def save_evidence(self, cell: Cell) -> None:
        """Keep what the servers and agents wrote, and what the cluster says of itself."""
        folder = EVIDENCE / f"{cell.fault} {cell.activity}".replace("/", "-").replace(" ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for node in NODES:
            for log in (self.machines.folder / node).glob("*.log"):
                shutil.copy(log, folder / f"{node}-{log.name}")
        for words in (
            ("ps", "-p", "base"),
            ("ps", "-p", "extra"),
            ("node", "ls"),
            ("rollout", "status", "-p", "base"),
            ("doctor",),
        ):
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = self.lab(*words, check=False, timeout=20)
                (folder / f"{'-'.join(words)}.txt").write_text(done.stdout + done.stderr)
        (folder / "problem.txt").write_text(cell.problem)
        shutil.copy(self.said, folder / "command.txt")


class Run:
    """All cells that are still to do, shared by several labs."""

    def __init__(self, kept: Path | None, only: list[str], budget: float) -> None:
        self._kept, self._ends = kept, time.monotonic() + budget
        self.cells: list[Cell] = msgspec.json.decode(kept.read_bytes(), type=list[Cell]) if kept and kept.exists() else []
        done = {(c.fault, c.activity) for c in self.cells if not c.problem}
        self._rows: queue.SimpleQueue[tuple[str, list[str]]] = queue.SimpleQueue()
        for fault in HAZARDS:
            left = [a for a in ACTIVITIES if (fault, a) not in done and (not only or any(w in f"{fault} × {a}" for w in only))]
            if left:
                self._rows.put((fault, left))
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Begin no other cell: labs are taken away at once."""
        self._ends = 0.0

    def note(self, cell: Cell) -> None:
        """Keep a cell in place of its predecessor."""
        with self._lock:
            same = (cell.fault, cell.activity)
            self.cells = [*(c for c in self.cells if (c.fault, c.activity) != same), cell]
            if self._kept:
                self._kept.parent.mkdir(parents=True, exist_ok=True)
                self._kept.write_bytes(msgspec.json.encode(self.cells))
            again = f" ({cell.repeated} times repeated)" if cell.repeated else ""
            print(f"{cell.fault} × {cell.activity}: {cell.problem or f'{cell.seconds:.1f} s'}{again}", flush=True)

    def work(self) -> None:
        """Take rows until none are left or the time is over; each lab lives until a cell goes wrong."""
        while not self._rows.empty() and self._on_one_lab():
            pass

    def _on_one_lab(self) -> bool:
        """Returns whether there is more to do."""
        with tempfile.TemporaryDirectory() as folder, cluster_of(len(NODES), servers=3, disk=DISK) as lab:
            matrix = Matrix(lab, Path(folder))
            while time.monotonic() < self._ends:
                try:
                    fault, activities = self._rows.get_nowait()
                except queue.Empty:
                    return False
                for number, activity in enumerate(activities):
                    if time.monotonic() > self._ends:
                        return False
                    try:
                        cell = matrix.cell(fault, activity)
                    except Exception as error:  # noqa: BLE001 - whatever it is, the other cells go on
                        traceback.print_exc()
                        cell = Cell(fault, activity, 0.0, f"the cell cannot be tried: {error}")
                    self.note(cell)
                    if cell.problem:
                        matrix.save_evidence(cell)
                        if left := activities[number + 1 :]:
                            self._rows.put((fault, left))
                        return True
        return False


def main() -> int:
    """0 where every cell ended as wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="Cells whose `FAULT × ACTIVITY` has this word.")
    parser.add_argument("--labs", type=int, default=1, help="How many labs work side by side.")
    parser.add_argument("--budget", type=float, default=1e9, help="Begin no cell after so many seconds.")
    parser.add_argument("--kept", type=Path, help="A file with cells: those that ended well are not repeated.")
    parser.add_argument("--write", action="store_true", help="Write the table to docs/reliability.md.")
    given = parser.parse_args()
    run = Run(given.kept, given.only, given.budget)
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    threads = [threading.Thread(target=run.work, name=f"lab {n}") for n in range(given.labs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cells = sorted(run.cells, key=lambda c: (list(HAZARDS).index(c.fault), ACTIVITIES.index(c.activity)))
    text = render(cells, ACTIVITIES)
    print(text)
    if given.write:
        DOCUMENT.write_text(put_into(DOCUMENT.read_text(), text))
    return any(c.problem for c in cells)


if __name__ == "__main__":
    sys.exit(main())
