"""The status that a node reports: of its tasks and of itself."""

from __future__ import annotations

from typing import Literal

from agent.contract.wire import WireStruct
from netplugins.vlan import parent_available

State = Literal[
    "pending",
    "pulling",
    "created",
    "starting",
    "running",
    "restarting",
    "paused",
    "stopping",
    "exited",
    "failed",
]


class PublishedPort(WireStruct, frozen=True, kw_only=True):
    """A port of a container (*target*) and its port and address on the host."""

    target: int
    published: int
    protocol: str
    host_ip: str


class TaskStatus(WireStruct, frozen=True, kw_only=True):
    """The status of one task. *error* is set if it cannot be made or started: what failed, why, what to do. *notes* say what
    the node had to do differently from the request. *listens* is false until its program has opened the task's TCP ports, for a
    moment at most."""

    task: str
    state: State
    container: str = ""
    digest: str = ""
    generation: int = 0
    image: str = ""
    image_id: str = ""
    health: str = ""
    listens: bool = True
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    ports: tuple[PublishedPort, ...] = ()
    addresses: tuple[tuple[str, str], ...] = ()
    created: str = ""
    started: str = ""
    finished: str = ""
    error: str = ""
    pre_stop_failed: bool = False
    """Whether *error* is that of a `pre_stop` hook: the task has stopped, or is about to."""
    notes: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Why it does not run, where more is known than its exit status; "" otherwise."""
        dead = self.oom_killed and self.state in ("exited", "failed", "restarting")
        return self.error or ("out of memory" if dead else "")


class NodeInfo(WireStruct, frozen=True, kw_only=True):
    """A node as it describes itself. *cpus* counts cores, *memory* bytes; *missing* names missing kernel features and programs;
    *links* are those of the host itself, *drivers* the network drivers, *devices* those that can be requested by name; *mtu* is
    that of its underlay, *has_underlay_address* whether it has an address there, *ssh_key* its public key for the SSH servers
    of other nodes, *seal_key* the one that secrets are sealed to, *tunnel_key* that of its WireGuard tunnel, each "" if none
    was requested yet; *addresses* are those of all its links except pystack's."""

    hostname: str = ""
    os: str = "linux"
    arch: str = ""
    cpus: float = 0.0
    memory: int = 0
    version: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    features: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    mtu: int = 1500
    has_underlay_address: bool = False
    ssh_key: str = ""
    devices: tuple[str, ...] = ()
    seal_key: str = ""
    tunnel_key: str = ""
    clock: float = 0.0
    addresses: tuple[str, ...] = ()
    problem: str = ""
    """What keeps the node from its work although it answers, "" if nothing does."""
    leaving: bool = False
    """Whether its machine is to go down."""

    def has_parent_link(self, parent: str) -> bool:
        """Whether networks can be made on the link *parent* here."""
        return parent in self.links or ("vlan" in self.features and parent_available(parent, self.links))


class NodeStatus(WireStruct, frozen=True, kw_only=True):
    """A node's whole status at one manifest revision."""

    revision: int = 0
    tasks: tuple[TaskStatus, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
