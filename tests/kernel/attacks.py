"""What an attacker in a container does: it has CAP_NET_RAW, as every container by default, and nothing more."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from orchestrator.lab import lab as labs
from tests.conftest import Pystack, Stack

DIAL = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3); print(s.recv(20))"


class Attacker:
    """A container of *stack*, by its task's name, seen from its network namespace."""

    def __init__(self, stack: Stack, task: str) -> None:
        self.lab = stack.pystack
        row = stack.ps()[task]
        self.node = str(row["node"])
        self.addresses: dict[str, str] = row["addresses"]  # type: ignore[assignment]
        self.namespace = f"{root(self.lab, self.node)}/run/netns/{str(row['id'])[:16]}"

    def run(self, script: str, *arguments: str) -> str:
        """What the Python *script* prints, run there with CAP_NET_RAW alone; its last line of complaint where it fails."""
        done = subprocess.run(self.words(script, *arguments), capture_output=True, text=True, timeout=30, check=False)
        return (done.stdout or "".join(done.stderr.splitlines()[-1:])).strip()

    def words(self, script: str, *arguments: str) -> list[str]:
        """The command that runs *script* there so."""
        return [
            *labs.enter(labs.find(self.lab.lab), self.node),
            "nsenter",
            f"--net={self.namespace}",
            "setpriv",
            "--bounding-set=-all,+net_raw",
            "--inh-caps=-all",
            "python3",
            "-c",
            script,
            *arguments,
        ]

    def reaches(self, address: str, port: int = 22) -> bool:
        """Whether a service of a node speaks to it: sshd says who it is."""
        return "SSH-2.0" in self.run(DIAL, address, str(port))


def root(lab: Pystack, node: str) -> Path:
    return Path(f"/var/lib/pystack-lab/{lab.lab}/{node}")


def table(lab: Pystack, node: str) -> str:
    """The name of the node's nftables table."""
    found = json.loads(lab.on(node, "nft", "-j", "list", "tables"))["nftables"]
    return str(next(t["table"]["name"] for t in found if "table" in t and t["table"]["name"].startswith("pystack")))
