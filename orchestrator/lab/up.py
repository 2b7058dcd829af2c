"""`lab up`: makes a lab."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from orchestrator import hostcheck
from orchestrator.errors import PystackError
from orchestrator.lab import disk, secure
from orchestrator.lab.cluster import add_users, join_nodes, wait_for_server
from orchestrator.lab.down import remove
from orchestrator.lab.lab import LABS, Lab, Machine, find, locked
from orchestrator.lab.network import NETWORK4, OUTSIDE
from orchestrator.lab.power import boot, insert_disk

MAX_NODES = 200
PROGRAMS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "runc": "runc",
    "conmon": "conmon",
    "nft": "nftables",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
}
"""Program → the package of Debian and Ubuntu that has it."""


def up(
    name: str,
    nodes: int = 1,
    labels: Mapping[str, Mapping[str, str]] = {},
    *,
    servers: int = 1,
    etcd: bool = False,
    readers: bool = False,
    disk_size: int = 0,
) -> Lab:
    """Make a lab, and return it when its server answers and has all nodes. A lab of this name that runs is returned as it is.

    *labels* is node → labels. The first *servers* of the nodes have a server each; with *etcd* also a member of their store,
    and with *readers* the nodes read their manifests from it themselves. Each node has a disk of its own of *disk_size* bytes;
    with 0 it is on the host's. Raises PystackError; nothing is left then."""
    check(name, nodes, labels, servers=servers, etcd=etcd, disk_size=disk_size)
    require_programs(PROGRAMS | ({"etcd": "etcd-server"} if etcd else {}))
    with locked(name):
        if (LABS / name / "lab.json").exists():
            lab = find(name)
            if all(m.alive() for m in lab.machines.values()):
                wait_for_server(lab)
                return lab
            remove(lab)
        lab = Lab(name=name, etcd=etcd, password=os.urandom(12).hex() if readers else "", disk_size=disk_size)
        lab.machines = machines(nodes, servers)
        lab.directory.mkdir(parents=True, exist_ok=True)
        try:
            addresses = {m.name: m.address for m in lab.machines.values() if m.role != "switch"}
            for machine in lab.machines.values():
                insert_disk(lab, machine)  # before anything is written to the folder that it covers
            secure.prepare(lab.directory, addresses, [m.name for m in lab.servers])
            for machine in lab.machines.values():
                boot(lab, machine)
            wait_for_server(lab)
            if readers:
                add_users(lab)
            join_nodes(lab, labels)
            return lab
        except BaseException:
            remove(lab)
            raise


def require_programs(packages: Mapping[str, str]) -> None:
    """Have the folders of system programs in PATH, which `su` without - leaves out. Raises PystackError with all that is
    missing, and without root."""
    if os.geteuid() != 0:
        raise PystackError("a lab is made of namespaces and needs root: `sudo pystack lab up`")
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *hostcheck.FOLDERS])
    if missing := {program: package for program, package in packages.items() if not hostcheck.which(program)}:
        install = f"{hostcheck.distribution()[1]} {' '.join(dict.fromkeys(missing.values()))}"
        raise PystackError(f"a lab needs programs that are not installed here ({', '.join(missing)}): {install}")


def check(name: str, nodes: int, labels: Mapping[str, Mapping[str, str]], *, servers: int, etcd: bool, disk_size: int) -> None:
    """Raises PystackError if no lab can be made like this; see `up`."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,20}", name):
        raise PystackError(f"lab name {name!r}: use at most 21 lower case letters, digits and -")
    if not 1 <= nodes <= MAX_NODES:
        raise PystackError(f"--nodes {nodes}: a lab has 1 to {MAX_NODES} nodes")
    if unknown := labels.keys() - {f"n{i}" for i in range(1, nodes + 1)}:
        raise PystackError(f"--label {', '.join(sorted(unknown))}: a lab of {nodes} has no such node")
    if not 1 <= servers <= nodes:
        raise PystackError(f"--servers {servers}: use 1 to the number of nodes, {nodes}")
    if servers > 1 and not etcd:
        raise PystackError(f"--servers {servers}: several servers need --store etcd")
    if disk_size and disk_size < disk.SMALLEST:
        raise PystackError(f"--disk {disk_size}: use at least {disk.SMALLEST >> 20}m")


def machines(nodes: int, servers: int) -> dict[str, Machine]:
    """The machines of a lab by name, in the order in which they boot; none runs yet."""
    found = [
        Machine(name="switch", role="switch", address="127.0.0.1"),
        Machine(name="outside", role="outside", address=f"{NETWORK4}.{OUTSIDE}"),
        *(
            Machine(name=f"n{n}", role="server" if n <= servers else "node", address=f"{NETWORK4}.{n}")
            for n in range(1, nodes + 1)
        ),
    ]
    return {m.name: m for m in found}
