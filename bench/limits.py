"""Limits asked for against what is measured; writes the tables of docs/limits.md.

Rates are compared as the kernel counts them, in whole Ethernet frames: what iperf3 counts is multiplied by the frame's bytes
over those of its payload.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from bench import resources
from bench.environment import Environment, Namespace, environment
from bench.page import replace_section
from bench.rows import Row, row, size

RATES = (1, 10, 100, 1000)[: size(4, 1)]
SECONDS = str(size(2, 1))
SLOW_SECONDS = str(size(8, 1))
"""At 1 Mbit/s, where two seconds are 170 packets."""
TRIES = 3
ETHERNET, IP, TCP, UDP = 14, 20, 32, 8
"""Bytes of headers; TCP's with the timestamps that Linux sends. Source: RFC 894, 791, 9293, 7323, 768."""
MTUS = {"bridge": 1500, "overlay": 1450}
STACK = """
x-limited: &limited
  image: busybox
  command: sleep 1000
  networks: {{net: {{x-bandwidth: {limit}}}}}
  deploy: {{placement: {{constraints: [node.hostname == n1]}}}}
services:
  a: *limited
  b: {{image: busybox, command: sleep 1000, networks: [net], deploy: {{placement: {{constraints: [node.hostname == {far}]}}}}}}
  c: *limited
networks: {{net: {{driver: {driver}}}}}
"""


def measure() -> dict[str, Row]:
    """Rows of each limit: measured, against what was asked for. Writes docs/limits.md where all is measured in full."""
    found: dict[str, Row] = {}
    with environment(nodes=2) as made:
        for driver, far in (("bridge", "n1"), ("overlay", "n2")):
            found |= Bandwidths(made, driver, far).measure()
        more = resources.of(made)
    if len(RATES) > 1:
        _write(found)
        resources.write(more)
    return found | more


class Bandwidths:
    """Two limited tasks, a and c, and one without limits, b, on one network of *driver*."""

    def __init__(self, made: Environment, driver: str, far: str) -> None:
        self.made = made
        self.driver = driver
        self.far = far
        self.file = made.root / f"limits-{driver}.yml"
        self.tasks: dict[str, dict[str, object]] = {}

    def _up(self, limit: str) -> None:
        self.file.write_text(STACK.format(limit=limit, far=self.far, driver=self.driver))
        self.made.pystack("-f", str(self.file), "up")
        words = [".venv/bin/pystack", "-f", str(self.file), "ps", "--format", "json"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=self.made.environment)
        self.tasks = {r["service"]: r for r in json.loads(done.stdout)}

    def _side(self, service: str) -> Namespace:
        task = self.tasks[service]
        root = Path(self.made.root).parent / str(task["node"])
        return Namespace(str(task["node"]), f"--net={root}/run/netns/{str(task['id'])[:16]}")

    def _address(self, service: str) -> str:
        return str(next(iter(self.tasks[service]["addresses"].values())))  # type: ignore[attr-defined]

    def measure(self) -> dict[str, Row]:
        """Both ways, by TCP and UDP, at each rate; and what a neighbour gets of its share while another is flooded."""
        found: dict[str, Row] = {}
        self._up("{}")
        servers = [self._side(service).start("iperf3", "-s", "-p", port) for service, port in (("a", "5201"), ("c", "5202"))]
        try:
            self._side("a").wait_for_ports(5201)
            self._side("c").wait_for_ports(5202)
            found[f"{self.driver}_unlimited"] = row(self._megabits(1600, "udp"), 2000, "Mbit/s", "higher")
            for rate in RATES:
                self._up(f"{{ingress: {rate}mbit, egress: {rate}mbit}}")
                for way, words in (("in", ()), ("out", ("-R",))):
                    for protocol in ("tcp", "udp"):
                        got = self._megabits(rate, protocol, *words)
                        found[f"{self.driver}_{protocol}_{way}_{rate}"] = row(got, rate, "Mbit/s", "higher")
            found[f"{self.driver}_neighbour"] = self._neighbour()
        finally:
            for server in servers:
                server.kill()
                server.wait()
        self.made.pystack("-f", str(self.file), "down")
        return found

    def _megabits(self, rate: int, protocol: str, *words: str) -> float:
        """What passes, in Mbit/s of frames, by the receiver's count."""
        mtu = MTUS[self.driver]
        payload = mtu - IP - (TCP if protocol == "tcp" else UDP)
        asked = ("-u", "-b", f"{rate * 1.25:.0f}M" if rate > 1 else "1.25M", "-l", str(payload)) if protocol == "udp" else ()
        # the first second is that of slow start, and of the bucket that was full
        seconds = SLOW_SECONDS if rate == 1 else SECONDS
        end = self._report("-c", self._address("a"), "-t", seconds, "-O", "1", *asked, *words)
        got = end.get("sum_received") or end["sum"]
        return float(got["bits_per_second"]) / 1e6 * (mtu + ETHERNET) / payload

    def _report(self, *words: str) -> dict[str, Any]:
        """What iperf3 says in b when it has ended. It gives up where its own few words do not get through in time, which a
        flood in the same queue or a busy machine may do: then it is asked again. Raises RuntimeError."""
        output = ""
        for _ in range(TRIES):
            try:
                output = self._side("b").run("iperf3", "-J", *words)
            except subprocess.CalledProcessError as error:
                output = str(error.stdout)
            end = json.loads(output).get("end", {})
            if "sum" in end or "sum_received" in end:
                return cast("dict[str, Any]", end)
        raise RuntimeError(f"iperf3 {' '.join(words)}: {output[-500:]}")

    def _neighbour(self) -> Row:
        """What c receives of its 100 Mbit/s by TCP while a is sent 800 Mbit/s of UDP, of which it may have 100."""
        self._up("{ingress: 100mbit, egress: 100mbit}")
        flood = self._side("b").start("iperf3", "-u", "-b", "800M", "-c", self._address("a"), "-t", "60")
        try:
            end = self._report("-c", self._address("c"), "-p", "5202", "-t", SECONDS, "-O", "1")
        finally:
            flood.kill()
            flood.wait()
        mtu = MTUS[self.driver]
        got = float(end["sum_received"]["bits_per_second"]) / 1e6
        return row(got * (mtu + ETHERNET) / (mtu - IP - TCP), 100, "Mbit/s", "higher")


def _write(found: dict[str, Row]) -> None:
    lines = ["| network | protocol | direction | asked, Mbit/s | measured | differs by |", "|---|---|---|---|---|---|"]
    for name, one in found.items():
        driver, *rest = name.split("_")
        if driver in MTUS and len(rest) == 3:
            protocol, way, rate = rest
            value, ratio = float(one["value"]), float(one["ratio"])
            lines.append(f"| {driver} | {protocol.upper()} | {way} | {rate} | {value:.2f} | {100 * (ratio - 1):+.1f} % |")
    shares = ", ".join(f"{100 * float(found[f'{d}_neighbour']['ratio']):.0f} % ({d})" for d in MTUS)
    note = f"What a container gets of its 100 Mbit/s by TCP while its neighbour is sent 800 Mbit/s of UDP: {shares}."
    free = ", ".join(f"{float(found[f'{d}_unlimited']['value']):.0f} Mbit/s ({d})" for d in MTUS)
    bound = f"Without a limit, one sender of UDP brings {free} here: at 1000 it is the sender that is slow."
    replace_section("bandwidth", "\n".join([*lines, "", note, bound]))


if __name__ == "__main__":
    from bench.__main__ import main

    raise SystemExit(main(["limits", *sys.argv[1:]]))
