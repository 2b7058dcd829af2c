"""Manifest and Status: the contract between the control plane and a node.

A Manifest says all that a node must be; a Status says what it is. Both are plain data and immutable. Beside them the control
plane imports of `agent` only what both sides do alike: `agent.sealing`, `agent.takeover`, `agent.failpoints`; the all-in-one
server also starts the agent (import contracts in pyproject.toml). Sizes are bytes, durations seconds, times RFC 3339 strings
in UTC.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from netplugins.vlan import parent_available

MTU_OPTION = "com.docker.network.driver.mtu"
_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")


class WireStruct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all that crosses the wire: immutable, and silent about what is left at its default."""


BUILD_EXTRAS = ".pystack-build"
"""The folder of a build context in which secrets (`secrets/ID`) and further contexts travel: the node takes it out before it
builds."""


def _check_address(text: str, where: str) -> None:
    """Raises ValueError where *text* is neither empty nor an IP address."""
    try:
        if text:
            socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        raise ValueError(f"{where} {text[:60]!r} is no IP address") from None


class Healthcheck(WireStruct, frozen=True, kw_only=True):
    """`healthcheck:` resolved. *test* begins with CMD or CMD-SHELL; an empty test switches an image's check off."""

    test: tuple[str, ...] = ()
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0
    start_interval_s: float = 5.0


class Mount(WireStruct, frozen=True, kw_only=True):
    """One entry below a container's root. For a volume, *source* is the volume's name, or "" for an anonymous one; for an
    image, its name, and *image_id* its identity."""

    kind: Literal["bind", "volume", "tmpfs", "image"]
    target: str
    source: str = ""
    read_only: bool = False
    propagation: str = "rprivate"
    create_host_path: bool = False
    recursive: bool = True
    nocopy: bool = False
    subpath: str = ""
    size: int = 0
    mode: int = 0o1777
    options: tuple[str, ...] = ()
    image_id: str = ""


class File(WireStruct, frozen=True, kw_only=True):
    """A config or secret as the container sees it: the content with that *digest* at *target*. *source* is what the stack
    file calls it."""

    target: str
    source: str
    digest: str = ""
    mode: int = 0o444
    uid: int = 0
    gid: int = 0
    secret: bool = False


class Attachment(WireStruct, frozen=True, kw_only=True):
    """A container on a network. Addresses are decided by the plan; where one is empty the agent takes a free one. IFNAME in
    the names of *sysctls* stands for the interface."""

    network: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    gw_priority: int = 0
    interface: str = ""
    link_local: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for address in (self.ipv4, self.ipv6, *self.link_local):
            _check_address(address, f"network {self.network[:60]}: address")
        if self.mac and not _MAC.fullmatch(self.mac):
            raise ValueError(f"network {self.network[:60]}: MAC address {self.mac[:60]!r} is not of the form 02:42:ac:11:00:02")


class Port(WireStruct, frozen=True, kw_only=True):
    """A published port. *published* 0 asks for a free one; *host_ip* "" means every address of the host. *mode* ingress:
    any node answers for the service; host: the task's node alone."""

    target: int
    published: int = 0
    protocol: str = "tcp"
    host_ip: str = ""
    mode: Literal["ingress", "host"] = "ingress"

    def __post_init__(self) -> None:
        if not (0 < self.target < 1 << 16 and 0 <= self.published < 1 << 16):
            raise ValueError(f"port {self.published or self.target} does not exist: 1 to 65535")
        if self.protocol not in ("tcp", "udp", "sctp"):
            raise ValueError(f"port {self.target}: protocol {self.protocol[:20]!r}: tcp, udp or sctp")
        _check_address(self.host_ip, f"port {self.target}: host address")


class Ulimit(WireStruct, frozen=True, kw_only=True):
    name: str
    soft: int
    hard: int


class Device(WireStruct, frozen=True, kw_only=True):
    source: str
    target: str
    permissions: str = "rwm"


class DeviceRequest(WireStruct, frozen=True, kw_only=True):
    """Devices by what they are: *count* of those that *driver* has (-1 is all) or those with the *ids*, which can do what
    *capabilities* say. An ID with "=" is a device's full name in the Container Device Interface."""

    driver: str = ""
    count: int = 1
    ids: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()

    def choose(self, there: Sequence[str]) -> tuple[str, ...] | None:
        """The devices of a node that has those *there*, by full names; None where it has not got them."""
        if self.ids:
            kinds = self._kinds(there)
            full = [i if "=" in i else next((f"{k}={i}" for k in kinds if f"{k}={i}" in there), "") for i in self.ids]
            return tuple(full) if all(f in there for f in full) else None
        for kind in self._kinds(there):
            own = [n for n in there if device_kind(n) == kind]
            if self.count < 0 and f"{kind}=all" in own:
                return (f"{kind}=all",)
            # a device may have a second name, its serial number: those that are numbers count, where there are some
            single = [n for n in own if not n.endswith("=all")]
            single = sorted((n for n in single if n.partition("=")[2].isdigit()), key=lambda n: (len(n), n)) or single
            if single and len(single) >= self.count:
                return tuple(single if self.count < 0 else single[: self.count])
        return None

    def _kinds(self, there: Sequence[str]) -> list[str]:
        known = list(dict.fromkeys(device_kind(n) for n in there))
        if self.driver in ("", "cdi"):
            return [k for k in known if not self.capabilities or k.partition("/")[2] in self.capabilities]
        return [k for k in known if k.split(".")[0].split("/")[0] == self.driver or k == self.driver]

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.driver, "/".join(self.capabilities)))) or "device"
        number = "all" if self.count < 0 else str(self.count)
        return f"{what} {', '.join(self.ids)}" if self.ids else f"{what} ({number} asked for)"


def device_kind(name: str) -> str:
    """`vendor.com/class` of a device's full name."""
    return name.partition("=")[0]


class DeviceRate(WireStruct, frozen=True, kw_only=True):
    """What I/O on the block device *path* of the node is held to: *what* is weight, read_bps, write_bps, read_iops or
    write_iops; *rate* bytes or operations a second."""

    what: str
    path: str
    rate: int


class Hook(WireStruct, frozen=True, kw_only=True):
    """A command that is run inside a container; *user* "" is the container's own."""

    command: tuple[str, ...]
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: tuple[tuple[str, str], ...] = ()


class Container(WireStruct, frozen=True, kw_only=True):
    """Everything that decides how a container runs: the resolved form of a Compose service, or of `container run`.

    *restart_delay_s* 0 backs off from 0.1 s to a minute; a start that lasted *restart_window_s*, or 10 s where that is 0, was
    good."""

    image: str
    image_id: str = ""
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    user: str = ""
    group_add: tuple[str, ...] = ()
    working_dir: str = ""
    hostname: str = ""
    domainname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    tty: bool = False
    stdin_open: bool = False
    stdin_once: bool = False
    init: bool = False
    read_only: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_grace_s: float = 10.0
    restart: str = "no"
    restart_max: int = 0
    restart_delay_s: float = 0.0
    restart_window_s: float = 0.0
    healthcheck: Healthcheck | None = None
    cpus: float = 0.0
    cpu_shares: int = 0
    cpuset: str = ""
    cpu_period: int = 0
    cpu_quota: int = 0
    cgroup_mode: str = ""
    swappiness: int | None = None
    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    pids: int = 0
    oom_score_adj: int = 0
    oom_kill_disable: bool = False
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    blkio_weight: int = 0
    blkio: tuple[DeviceRate, ...] = ()
    cgroup_parent: str = ""
    api_socket: bool = False
    shm_size: int = 64 << 20
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    devices: tuple[Device, ...] = ()
    device_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    files: tuple[File, ...] = ()
    network_mode: str = ""
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    userns_mode: Literal["", "host", "auto"] = ""
    """auto: a user namespace of its own; "": as the node's settings say."""
    attachments: tuple[Attachment, ...] = ()
    ports: tuple[Port, ...] = ()
    expose: tuple[str, ...] = ()
    """Ports (`80/tcp`) that it listens on; nothing follows from that."""
    extra_hosts: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    log_driver: str = "json-file"
    log_options: tuple[tuple[str, str], ...] = ()
    pull_policy: str = "missing"
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()

    @property
    def images(self) -> dict[str, str]:
        """Every image that it needs, by name, with its identity: its own, and those that it mounts."""
        return {self.image: self.image_id} | {m.source: m.image_id for m in self.mounts if m.kind == "image"}


class Subnet(WireStruct, frozen=True, kw_only=True):
    """One address pool of a network, CIDR, with the address that the host holds in it. Addresses are given out of
    *ip_range* (CIDR, "" is all of it), but for those *reserved*, whose *reserved_names* they are where they have some."""

    cidr: str
    gateway: str = ""
    ip_range: str = ""
    reserved: tuple[str, ...] = ()
    reserved_names: tuple[str, ...] = ()


class AddressAssignment(WireStruct, frozen=True, kw_only=True):
    """Who holds addresses on a network: a node, or a service."""

    name: str
    ipv4: str = ""
    ipv6: str = ""


class Network(WireStruct, frozen=True, kw_only=True):
    """A network as a node must build it. *name* is unique on the node, `<stack>_<key>` unless the file says otherwise.

    An overlay has a *vni* (24 bits), *service_pools* (CIDRs of the addresses of whole services), *hosts* (the nodes that
    carry it, with an address of their own on it) and *vips* (services that have one address)."""

    name: str
    driver: str = "bridge"
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    attachable: bool = False
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stack: str = ""
    key: str = ""
    vni: int = 0
    service_pools: tuple[str, ...] = ()
    hosts: tuple[AddressAssignment, ...] = ()
    vips: tuple[AddressAssignment, ...] = ()
    created: str = ""
    """When it was made by hand; "" for a stack's."""

    def __post_init__(self) -> None:
        # one network that cannot be computed would keep a node from all of them
        if len(self.name) > 255:
            raise ValueError(f"network {self.name[:60]}…: its name has more than 255 characters")
        mtu = dict(self.options).get(MTU_OPTION, "1500")
        if not (re.fullmatch(r"[0-9]{1,5}", mtu) and 68 <= int(mtu) < 1 << 16):
            raise ValueError(f"network {self.name[:60]}: {MTU_OPTION} {mtu[:60]!r}: a number from 68 to 65535")

    @property
    def encrypted(self) -> bool:
        """Whether what its nodes say to each other on it must be secret."""
        return self.driver == "overlay" and is_encrypted(self.options)

    @property
    def on_lan(self) -> bool:
        """Whether its containers stand on a LAN of the hosts, with addresses of that."""
        return self.driver in ("macvlan", "ipvlan")


def is_encrypted(options: Iterable[tuple[str, str]]) -> bool:
    """Whether the options of an overlay ask for encryption: in Docker the bare key does, whatever its value."""
    return dict(options).get("encrypted", "false").lower() not in ("false", "0")


VOLUME_DRIVERS: dict[str, frozenset[str]] = {
    "local": frozenset({"type", "device", "o"}),
    "nfs": frozenset({"server", "path", "device", "o"}),
    "cifs": frozenset({"device", "o"}),
    "glusterfs": frozenset({"servers", "volume", "device", "o"}),
    "sshfs": frozenset({"sshcmd", "port", "identity_file", "o"}),
}
"""Volume drivers, with the options that each has."""
NODE_LOCAL_TYPES = ("", "none", "bind", "tmpfs", "ext4", "xfs", "btrfs", "overlay")
"""Values of `type` with which a local volume is one node's own."""


def volume_driver(name: str) -> str:
    """A volume driver's own name: some are known by those of plugins too (`vieux/sshfs:latest`)."""
    return {"vieux/sshfs": "sshfs", "": "local", "default": "local"}.get(name.partition(":")[0], name)


def is_shared(driver: str, options: Iterable[tuple[str, str]]) -> bool:
    """Whether tasks on several nodes see one volume, rather than each node its own."""
    return driver != "local" or dict(options).get("type", "") not in NODE_LOCAL_TYPES


class VolumeHost(WireStruct, frozen=True, kw_only=True):
    """The node that exports a volume, and how its SSH server is reached and known (*host_key* in OpenSSH's form)."""

    node: str
    address: str = ""
    port: int = 22
    user: str = "root"
    host_key: str = ""


class VolumeClient(WireStruct, frozen=True, kw_only=True):
    """A node that mounts a volume of another, with the public SSH key that it comes with."""

    node: str
    key: str


class Volume(WireStruct, frozen=True, kw_only=True):
    """*node* is where a local volume's data lie, "" before its first user was placed; with *follow* they go where their
    users must go. For a volume that its home exports, the home's manifest has *clients*, and those of the others its
    *host*."""

    name: str
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    external: bool = False
    stack: str = ""
    key: str = ""
    node: str = ""
    follow: bool = False
    host: VolumeHost | None = None
    clients: tuple[VolumeClient, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether tasks on several nodes see one volume."""
        return is_shared(self.driver, self.options)

    @property
    def own_labels(self) -> dict[str, str]:
        """Its labels, and those by which it is known to be its stack's."""
        marks = {"com.docker.compose.project": self.stack, "com.docker.compose.volume": self.key} if self.stack else {}
        return dict(self.labels) | marks

    @property
    def exported(self) -> bool:
        """Whether its home node exports it to the others."""
        return self.driver == "sshfs" and "sshcmd" not in dict(self.options)


class TreeChecksum(WireStruct, frozen=True, kw_only=True):
    """What a tree holds: *digest* is of all names, modes, owners, times, links, attributes and contents; *entries* maps
    each path to its own part."""

    digest: str
    files: int
    bytes: int
    entries: dict[str, str] = {}


Desired = Literal["running", "stopped", "waiting", "oneoff"]


class Task(WireStruct, frozen=True, kw_only=True):
    """One replica of a service, placed on this node.

    *desired* "waiting" means: be ready (image pulled), do not start yet; "oneoff" is a container that somebody runs by hand
    (`pystack run`) on the stack's networks: it has addresses, and no node keeps it going. *generation* counts ordered
    restarts: a node restarts a task whose generation it has not seen. One that is to *renew* leaves its predecessor's anonymous
    volumes behind. *where* is the service's place in the stack file."""

    name: str
    stack: str
    service: str
    container: Container
    node: str = ""
    container_name: str = ""
    index: int = 1
    desired: Desired = "running"
    generation: int = 0
    renew: bool = False
    where: str = ""


class RemoteEndpoint(WireStruct, frozen=True, kw_only=True):
    """An endpoint on another node: frames to *mac* go to that node's *underlay* address. *names* are what containers on
    the network call it; a node's own address on a network has none."""

    network: str
    underlay: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    names: tuple[str, ...] = ()


class TunnelPeer(WireStruct, frozen=True, kw_only=True):
    """The far end of this node's WireGuard tunnel on node *name*: reached at *underlay*, known by its public *key*."""

    name: str
    underlay: str
    key: str


class OpenPort(WireStruct, frozen=True, kw_only=True):
    """A port that a node publishes at its address *host_ip*, or at all of them."""

    port: int
    protocol: str = "tcp"
    host_ip: str = ""


class ClusterNode(WireStruct, frozen=True, kw_only=True):
    """A node of the cluster, this one among them, as its neighbours' firewalls must know it: all its *addresses*, and the
    *ports* published there alone."""

    name: str
    addresses: tuple[str, ...] = ()
    ports: tuple[OpenPort, ...] = ()


class ServiceAddress(WireStruct, frozen=True, kw_only=True, cache_hash=True):
    """A service as one: connections to its address, or to its *ports* on any node, go to one of *backends*, the tasks
    that can serve now. *names* lead to the address."""

    service: str
    network: str
    ipv4: str = ""
    ipv6: str = ""
    names: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    backends: tuple[AddressAssignment, ...] = ()


class FileContent(WireStruct, frozen=True, kw_only=True):
    """What a config contains, or, *sealed* to the node's key for the purpose of its digest, what a secret contains."""

    digest: str
    data: bytes
    sealed: bool = False


class Manifest(WireStruct, frozen=True, kw_only=True):
    """What *node* must be. *serial* tells one delivery from another. *underlay* is the address under which other nodes
    reach it, "" on a node that is alone; *mtu* is what every path between nodes carries, 0 where that is not known. *remote_endpoints* are
    the endpoints on other nodes of the networks that this one has, *tunnels* the nodes with which it has encrypted ones,
    *nodes* all nodes of the cluster, none where there is but one.

    Whatever of pystack's the node has and the manifest does not name is removed, except volumes (data goes only when asked
    for) and containers made through the Docker Engine API."""

    revision: int = 0
    serial: str = ""
    node: str = ""
    underlay: str = ""
    mtu: int = 0
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    tasks: tuple[Task, ...] = ()
    remote_endpoints: tuple[RemoteEndpoint, ...] = ()
    service_addresses: tuple[ServiceAddress, ...] = ()
    contents: tuple[FileContent, ...] = ()
    tunnels: tuple[TunnelPeer, ...] = ()
    nodes: tuple[ClusterNode, ...] = ()


PARTS = ("networks", "volumes", "tasks", "remote_endpoints", "service_addresses", "contents", "tunnels", "nodes")


class Delta(WireStruct, frozen=True, kw_only=True):
    """What leads from the manifest with serial *base* to the next: *put* has the next one's head and the entries that are
    new or changed, *drop* the keys of those that are gone, by part."""

    base: str
    put: Manifest
    drop: dict[str, tuple[str, ...]] = {}


def entry_key(
    part: str, entry: Network | Volume | Task | RemoteEndpoint | ServiceAddress | FileContent | TunnelPeer | ClusterNode
) -> str:
    """What an entry is known by within its part of a manifest."""
    if isinstance(entry, RemoteEndpoint):
        return f"{entry.network} {entry.ipv4} {entry.ipv6}"
    if isinstance(entry, ServiceAddress):
        return f"{entry.service} {entry.network}"
    if isinstance(entry, FileContent):
        return entry.digest
    return entry.name


def diff(old: Manifest, new: Manifest) -> Delta:
    """The Delta with which `patched` makes *new* of *old*; its size is that of the change."""
    changed: dict[str, tuple[WireStruct, ...]] = {}
    drop: dict[str, tuple[str, ...]] = {}
    for part in PARTS:
        before = {entry_key(part, e): e for e in getattr(old, part)}
        after = {entry_key(part, e): e for e in getattr(new, part)}
        changed[part] = tuple(e for k, e in after.items() if before.get(k) != e)
        if gone := tuple(k for k in before if k not in after):
            drop[part] = gone
    return Delta(base=old.serial, put=msgspec.structs.replace(new, **changed), drop=drop)


def apply_delta(old: Manifest, delta: Delta) -> Manifest:
    """*old* with *delta* laid over it; entries that stayed keep their order. Raises ValueError where *old* is not its base."""
    if old.serial != delta.base:
        raise ValueError(f"the change is one of manifest {delta.base!r}, and here is {old.serial!r}")
    parts: dict[str, tuple[WireStruct, ...]] = {}
    for part in PARTS:
        entries = {entry_key(part, e): e for e in getattr(old, part)}
        for key in delta.drop.get(part, ()):
            entries.pop(key, None)
        entries.update({entry_key(part, e): e for e in getattr(delta.put, part)})
        parts[part] = tuple(entries.values())
    return msgspec.structs.replace(delta.put, **parts)


class EtcdCredentials(WireStruct, frozen=True, kw_only=True):
    """How a node reads its manifest from etcd: the *members* (HOST:PORT), the *prefix* that is its own, its credentials.
    *ca* is PEM text."""

    members: tuple[str, ...]
    prefix: str
    user: str
    password: str
    ca: str = ""
    tls: bool = False


class ManifestHeader(WireStruct, frozen=True, kw_only=True):
    """What lies beside a manifest's entries where they lie one by one: the *manifest* without them, and the *digest* of all."""

    manifest: Manifest
    digest: str


def digest_of(entries: Mapping[str, bytes]) -> str:
    """Of the entries of a manifest, by `<part>/<key>`."""
    import hashlib

    found = hashlib.sha256()
    for key in sorted(entries):
        found.update(f"{key} {len(entries[key])} ".encode() + entries[key])
    return found.hexdigest()


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
    target: int
    published: int
    protocol: str
    host_ip: str


class TaskStatus(WireStruct, frozen=True, kw_only=True):
    """What one task is. *error* is set where a task cannot be made or started: what failed, why, what to do. *notes* say what
    its node had to do differently from what was asked. *listens* is false as long as its program has yet to open the TCP ports
    that the task has, for a moment at most."""

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
    notes: tuple[str, ...] = ()


class NodeInfo(WireStruct, frozen=True, kw_only=True):
    """What a node is, as it says itself. *cpus* counts cores, *memory* bytes; *missing* names what its kernel or its
    installed programs are missing; *links* are those of the host itself, *drivers* the network drivers, *devices* those that
    can be asked for by name; *mtu* is that of its underlay, which it has an address on (*has_underlay_address*) or is not (any more), *ssh_key* the
    public key that it comes with to the others' SSH servers, *seal_key* the one that secrets are sealed to, *tunnel_key* the
    one of its WireGuard tunnel, each "" where none was asked for yet; *addresses* are those of all its links but pystack's."""

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

    def has_parent_link(self, parent: str) -> bool:
        """Whether networks can be made on the link *parent* here."""
        return parent in self.links or ("vlan" in self.features and parent_available(parent, self.links))


class BundledLayer(WireStruct, frozen=True, kw_only=True):
    digest: str
    diff_id: str
    size: int


class ImageBundle(WireStruct, frozen=True, kw_only=True):
    """An image on its way between nodes: the digests of its manifest, config and layers, and what it is called."""

    digest: str
    config: str
    layers: tuple[BundledLayer, ...] = ()
    names: tuple[str, ...] = ()


class NodeStatus(WireStruct, frozen=True, kw_only=True):
    """A node's whole status at one manifest revision."""

    revision: int = 0
    tasks: tuple[TaskStatus, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def digest(container: Container) -> str:
    """The identity of a container's spec: equal exactly when nothing that decides how it runs differs. 16 hex digits."""
    import hashlib

    return hashlib.sha256(msgspec.json.encode(container, order="deterministic")).hexdigest()[:16]
