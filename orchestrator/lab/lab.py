"""A lab: machines made of namespaces on a virtual switch. The host's own network namespace is never touched.

    <labs>/<name>/lab.json      which machines there are, by the PID and start time of their first process
    <labs>/<name>/<machine>/    a machine's state folder, PYSTACK_ROOT of its server

`n1` … are nodes, the first ones have a server; `outside` is a machine on the switch that is not a node; `switch` only has
the bridge.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from agent.contract.processes import start_time
from orchestrator.errors import PystackError

LABS = Path("/var/lib/pystack-lab")


class Machine(msgspec.Struct, kw_only=True):
    """*role* is server, node, outside or switch. *pid* and *started* identify its first process in the host's PID namespace; 0
    while the machine is switched off."""

    name: str
    role: str
    address: str
    pid: int = 0
    started: int = 0

    def alive(self) -> bool:
        """Whether its first process runs."""
        return self.pid > 0 and start_time(self.pid) == self.started

    def directory(self, lab: Lab) -> Path:
        """Its state folder."""
        return lab.directory / self.name


class Relay(msgspec.Struct, kw_only=True):
    """The process of a `lab forward`: *local* is the port on 127.0.0.1, *target* is MACHINE:PORT."""

    pid: int
    started: int
    local: int
    target: str


class Lab(msgspec.Struct, kw_only=True):
    """A lab as lab.json has it. *etcd*: each server has a member of the store. *password* is that of etcd's user root, "" if
    etcd has no users. *disk_size* are the bytes of each node's own disk, 0 if nodes are on the host's."""

    name: str
    machines: dict[str, Machine] = {}
    etcd: bool = False
    password: str = ""
    relays: list[Relay] = []
    disk_size: int = 0

    @property
    def directory(self) -> Path:
        """The folder of the lab."""
        return LABS / self.name

    @property
    def servers(self) -> list[Machine]:
        """The machines with a server."""
        return [m for m in self.machines.values() if m.role == "server"]

    def machine(self, name: str) -> Machine:
        """Raises PystackError if *name* is not a machine of the lab."""
        if name not in self.machines or name == "switch":
            there = ", ".join(n for n in self.machines if n != "switch")
            raise PystackError(f"lab {self.name} has no machine {name}; it has: {there}")
        return self.machines[name]

    def save(self) -> None:
        """Write lab.json."""
        path = self.directory / "lab.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(self))
        temporary.replace(path)

    def socket(self, node: str = "n1") -> Path:
        """The control socket of the server on *node*."""
        return self.directory / node / "run" / "pystack.sock"


def names() -> list[str]:
    """The names of all labs."""
    return sorted(p.parent.name for p in LABS.glob("*/lab.json"))


def find(name: str) -> Lab:
    """The lab called *name*. Raises PystackError if there is none."""
    path = LABS / name / "lab.json"
    if not path.exists():
        there = ", ".join(names())
        raise PystackError(
            f"no lab is called {name}; " + (f"there are: {there}" if there else "make one with `pystack lab up`")
        )
    return msgspec.json.decode(path.read_bytes(), type=Lab)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock on the name of a lab, which need not exist."""
    LABS.mkdir(parents=True, exist_ok=True)
    lock = os.open(LABS / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        (LABS / f".{name}.lock").unlink(missing_ok=True)
        os.close(lock)


def enter(lab: Lab, machine: str) -> list[str]:
    """The words to put before a command so that it runs on *machine*. Raises PystackError if that is off."""
    found = lab.machine(machine)
    if not found.alive():
        raise PystackError(f"machine {machine} is off: start it with `pystack lab fault boot {machine}`")
    return ["nsenter", "-t", str(found.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
