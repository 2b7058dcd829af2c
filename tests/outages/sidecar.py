"""The "VPN sidecar": a service in the network namespace of another, which is restarted and replaced under requests.

Its user is asked every 20 ms at the port that its owner publishes. A failing request counts as explained where it overlaps an
absence of the owner, from the signal that ends it to its next start, or the second after that.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.conftest import Stack, eventually

PORT, SETTLING_S = 18474, 1.0
FILE = """
services:
  vpn:
    image: busybox
    command: sleep 100000
    stop_grace_period: 0s
    restart: always
    environment: {VALUE: '%d'}
    ports: ['18474:80']
  app:
    image: busybox
    command: httpd -f -p 80 -h /srv
    stop_grace_period: 0s
    network_mode: service:vpn
"""


@dataclass
class Outage:
    """What requests saw: how many there were, those that failed outside of absences, and how long after each start of the owner
    the last failure that belongs to it was."""

    requests: int = 0
    failed: int = 0
    outside: list[float] = field(default_factory=list)
    settled_s: list[float] = field(default_factory=list)
    absences: int = 0


class Reading:
    """The JSON lines of a program that runs until it is stopped."""

    def __init__(self, words: list[str], environment: Mapping[str, str] | None = None, *, stdin: int | None = None) -> None:
        self.process = subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, text=True, env=environment)
        self.rows: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout:
            for line in self.process.stdout:
                self.rows.append(json.loads(line))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self._reader.join()


class Asking(Reading):
    """Requests every 20 ms from the machine that is named, on record."""

    def __init__(self, stack: Stack, machine: str, how: str, urls: list[str]) -> None:
        words = ["nsenter", "-t", stack.pystack.pid(machine), "-n", sys.executable]
        super().__init__([*words, str(Path(__file__).with_name("clients.py")), how, "100000", *urls], stack.pystack.environment)

    def answered(self) -> None:
        """Wait for an answer to a request that begins from now on."""
        now = time.time()

        def good() -> None:
            assert any(not r["problem"] and r["begun"] > now for r in self.rows[-50:])

        eventually(good, 60)


def measured(stack: Stack, restarts: int, replacements: int) -> Outage:
    """*restarts* and *replacements* of the owner, one after the other, under requests."""
    begun = time.time()
    stack.up(FILE % 0)
    words = ["compose", "-f", str(stack.file), "-p", stack.name, "events", "--json", "--since", str(begun), "vpn"]
    events = Reading([sys.executable, "-m", "orchestrator", *words], stack.pystack.environment)
    asking = Asking(stack, "n1", "short", [f"http://127.0.0.1:{PORT}/hello"])
    try:
        asking.answered()
        for number in range(restarts + replacements):
            before = len(absences_of(events.rows))
            if number < restarts:
                stack.run("restart", "vpn")
            else:
                stack.up(FILE % (number + 1))
            eventually(partial(_absent_again, events, before))
            asking.answered()
    finally:
        asking.stop()
        events.stop()
    return judged(asking.rows, absences_of(events.rows))


def _absent_again(events: Reading, before: int) -> None:
    assert len(absences_of(events.rows)) > before


def absences_of(events: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """When the owner was away, by its node's *events*: from the first signal to the start that followed."""
    out: list[tuple[float, float]] = []
    away = 0.0
    for event in list(events):
        when = datetime.datetime.fromisoformat(event["time"]).timestamp()
        if event["action"] in ("kill", "die", "stop", "destroy") and not away:
            away = when
        elif event["action"] == "start" and away:
            out.append((away, when))
            away = 0.0
    return out


def judged(rows: Sequence[Mapping[str, Any]], absences: list[tuple[float, float]]) -> Outage:
    """*rows* of the client beside the *absences* of the owner."""
    out = Outage(requests=len(rows), absences=len(absences))
    settled = dict.fromkeys(absences, 0.0)
    for row in rows:
        if not row["problem"]:
            continue
        out.failed += 1
        begun, ended = row["begun"], row["ended"]
        near = [a for a in absences if begun <= a[1] + SETTLING_S and ended >= a[0]]
        if not near:
            out.outside.append(begun)
        for one in near:
            settled[one] = max(settled[one], begun - one[1])
    out.settled_s = sorted(settled.values())
    return out
