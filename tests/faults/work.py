"""What goes on while something fails, and what is to be true afterwards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults.machines import AGENT, NODES, Machines

PORT = 18090
KEPT = "a word that must not be lost"
BASE = """
name: base
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    restart: always
    environment: [VERSION=%d]
    ports: ["18090:80"]
    deploy: {replicas: %d, update_config: {order: start-first, parallelism: 2}}
  once: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, restart: always, x-fence: strict}
  all: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, restart: always, deploy: {mode: global}}
  data:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    restart: always
    volumes: ["kept:/data"]
volumes:
  kept: {x-volume: {follow: true}}
"""
EXTRA = """
name: extra
services:
  side: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, restart: always, deploy: {replicas: 4}}
"""
ACTIVITIES = ("up", "idle", "update", "scale", "restart", "move", "drain", "down")


class Work:
    """The stacks of a lab: what is wanted now, the command that makes it so, and what is not so."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self.machines = machines
        self.base, self.extra = folder / "base.yml", folder / "extra.yml"
        self.extra.write_text(EXTRA)
        self.version, self.replicas = 1, 4
        self.with_extra = self.drained = False
        self.home = ""
        """The node that the volume is to be on, "" for any."""
        self.write()

    def write(self) -> None:
        """Write the file of the base stack."""
        self.base.write_text(BASE % (self.version, self.replicas))

    def begin(self, activity: str) -> list[str]:
        """The words of the command that makes what *activity* wants true; none for idle."""
        self.home = ""
        if activity == "update":
            self.version += 1
        elif activity == "scale":
            self.replicas = 10 - self.replicas
        elif activity in ("up", "down"):
            self.with_extra = activity == "up"
        elif activity == "drain":
            self.drained = True
        elif activity == "move":
            (at,) = (r["node"] for r in self._rows("base") if r["service"] == "data")
            self.home = "n2" if at != "n2" else AGENT
        self.write()
        return {
            "update": ["-f", str(self.base), "up"],
            "scale": ["-f", str(self.base), "up"],
            "restart": ["-f", str(self.base), "restart", "web"],
            "up": ["-f", str(self.extra), "up"],
            "down": ["-f", str(self.extra), "down"],
            "move": ["volume", "move", "base_kept", self.home],
            "drain": ["node", "drain", AGENT],
        }.get(activity, [])

    def _rows(self, stack: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.machines.ask(f"/v1/stacks/{stack}/tasks")
        return rows

    def wrong(self) -> str:
        """What is not as it should be, "" if all is."""
        try:
            nodes = {row["name"]: row["state"] for row in self.machines.ask("/v1/nodes")}
            if bad := [f"{name} is {nodes.get(name, 'gone')}" for name in NODES if nodes.get(name) != "ready"]:
                return bad[0]
            stacks = {row["stack"] for row in self.machines.ask("/v1/stacks")}
            if stacks != {"base", *(["extra"] if self.with_extra else [])}:
                return f"there are the stacks {', '.join(sorted(stacks))}"
            rows = [row for stack in sorted(stacks) for row in self._rows(stack)]
            return self._wrong_tasks(rows) or self._wrong_containers(rows) or self._wrong_volume(rows)
        except OSError as error:
            return f"no answer: {error}"

    def _wrong_tasks(self, rows: list[dict[str, Any]]) -> str:
        if wrong := [f"{r['task']} is {r['state']} on {r['node']}: {r['error']}" for r in rows if r["state"] != "running"]:
            return wrong[0]
        wanted = {"web": self.replicas, "once": 1, "data": 1, "all": len(NODES) - self.drained}
        if self.with_extra:
            wanted["side"] = 4
        if (count := Counter(r["service"] for r in rows)) != wanted:
            return f"there are {dict(count)}"
        if self.drained and (left := [r["task"] for r in rows if r["node"] == AGENT]):
            return f"{left[0]} is still on {AGENT}"
        homes = [r["node"] for r in rows if r["service"] == "data"]
        return f"the volume's task is on {homes[0]}" if self.home and homes != [self.home] else ""

    def _wrong_containers(self, rows: list[dict[str, Any]]) -> str:
        """What the nodes have is what the servers say, and answers."""
        found = {node: self.machines.containers(node) for node in NODES}
        for node, containers in found.items():
            if set(containers) != {r["id"] for r in rows if r["node"] == node}:
                return f"{node} has other containers: {len(containers)}"
        for row in rows:
            inspected = found[row["node"]][row["id"]]
            if not inspected["State"]["Running"]:
                return f"{row['task']} does not run on {row['node']}"
            if row["service"] == "web" and f"VERSION={self.version}" not in inspected["Config"]["Env"]:
                return f"{row['task']} has another version"
        asks = f"for n in 1 2 3 4; do curl -s -m 3 http://10.99.0.$n:{PORT} || echo nobody; done"
        said = self.machines.run("outside", "sh", "-c", asks).split()
        web = {r["id"][:12] for r in rows if r["service"] == "web"}
        if strange := [f"n{n} says {word}" for n, word in enumerate(said, 1) if word not in web]:
            return f"port {PORT}: {strange[0]}"
        return "" if len(said) == len(NODES) else f"port {PORT}: {len(said)} answers"

    def _wrong_volume(self, rows: list[dict[str, Any]]) -> str:
        """The volume is where its task is, with what was written, and nowhere else."""
        (home,) = (r["node"] for r in rows if r["service"] == "data")
        for node in NODES:
            files = list((self.machines.folder / node / "volumes").glob("base_kept/**/word"))
            if node == home and [f.read_text().strip() for f in files if not f.is_symlink()] != [KEPT]:
                return f"the volume on {node} has lost what was written"
            if node != home and files:
                return f"{node} has a copy of the volume"
        return ""
