"""A container as a node must make it: the keys of a service, resolved."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from agent.contract.bandwidth import Bandwidth
from agent.contract.wire import WireStruct

MAC_ADDRESS = r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}"

BUILD_EXTRAS = ".pystack-build"
"""The folder of a build context in which secrets (`secrets/ID`) and further contexts travel: the node takes it out before it
builds."""


def _check_address(text: str, where: str) -> None:
    """Raises ValueError where *text* is neither empty nor an IP address."""
    if not text:
        return
    import socket  # not at the top: the command line, which rarely needs it, is spared 1 ms

    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        raise ValueError(f"{where} {text[:60]!r} is not an IP address") from None


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
    selinux: Literal["", "z", "Z"] = ""
    """Whose label the source gets: z of all containers, Z of this one alone, \"\" none."""


class File(WireStruct, frozen=True, kw_only=True):
    """A config or secret as the container sees it: the content with that *digest* at *target*. *source* is what the stack
    file calls it. Where there is a *template*, the content is one (`golang_template.py`), and these are the values that it can
    name; \\x1f divides the parts of a name."""

    target: str
    source: str
    digest: str = ""
    mode: int = 0o444
    uid: int = 0
    gid: int = 0
    secret: bool = False
    template: tuple[tuple[str, str], ...] = ()


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
    bandwidth: Bandwidth | None = None

    def __post_init__(self) -> None:
        for address in (self.ipv4, self.ipv6, *self.link_local):
            _check_address(address, f"network {self.network[:60]}: address")
        if self.mac and not re.fullmatch(MAC_ADDRESS, self.mac):
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
    """A resource limit by its name without RLIMIT_; see getrlimit(2)."""

    name: str
    soft: int
    hard: int


class Device(WireStruct, frozen=True, kw_only=True):
    """A device of the host and its path in the container; *permissions* of r, w, m as in the cgroup device rules."""

    source: str
    target: str
    permissions: str = "rwm"


class DeviceRequest(WireStruct, frozen=True, kw_only=True):
    """A request for devices by driver: *count* of those that *driver* has (-1 is all), or those with the *ids*, each with all
    of *capabilities*. An ID with "=" is a device's full name in the Container Device Interface."""

    driver: str = ""
    count: int = 1
    ids: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()

    def choose(self, there: Sequence[str]) -> tuple[str, ...] | None:
        """The full names of the devices that a node with the devices *there* gives to the request; None if it cannot."""
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
            single = sorted((n for n in single if n.partition("=")[2].isdecimal()), key=lambda n: (len(n), n)) or single
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
    """A limit of I/O on a block device: *what* is weight, read_bps, write_bps, read_iops or write_iops; *rate* is in bytes or
    operations a second. *path* is the node's device, a path below one of the container's mounts, or / for its own layer."""

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
    environment_dropped: tuple[str, ...] = ()
    """Variables of the image that are not to be there."""
    user: str = ""
    group_add: tuple[str, ...] = ()
    working_dir: str = ""
    hostname: str = ""
    domainname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    origin: tuple[tuple[str, str], ...] = ()
    """Labels that say where the container comes from, and nothing of how it runs: they stay as they were when it was made."""
    annotations: tuple[tuple[str, str], ...] = ()
    tty: bool = False
    stdin_open: bool = False
    stdin_once: bool = False
    init: bool = False
    runtime: str = ""
    """The OCI runtime that runs it, by its name in the node's settings; "" is the node's own."""
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
    cpuset_mems: str = ""
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_burst: int = 0
    """Microseconds of its quota that it may save up for a period of more work."""
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
    hugepages: tuple[tuple[str, str], ...] = ()
    """Sizes of huge pages (2MB), and how much memory in pages of that size it may use (64m)."""
    cgroup_parent: str = ""
    api_socket: bool = False
    storage_size: int = 0
    """What its writable layer may take, in bytes; 0 is not limited."""
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


def digest(container: Container) -> str:
    """The identity of a container's spec: equal exactly when nothing that decides how it runs differs. 16 hex digits."""
    import hashlib

    bare = msgspec.structs.replace(container, origin=()) if container.origin else container
    return hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()[:16]


LIMITS: dict[str, Any] = {
    "cpus": 0.0,
    "cpu_shares": 0,
    "cpuset": "",
    "cpuset_mems": "",
    "cpu_period": 0,
    "cpu_quota": 0,
    "cpu_burst": 0,
    "cpu_rt_period": 0,
    "cpu_rt_runtime": 0,
    "memory": 0,
    "memory_swap": 0,
    "memory_reservation": 0,
    "swappiness": None,
    "pids": 0,
    "blkio_weight": 0,
    "blkio": (),
    "hugepages": (),
}
"""Limits that a control group keeps, which can be changed while a container runs; each by the value that asks for nothing."""


def adjusted(old: Container, new: Container) -> bool:
    """Whether *new* differs from *old* in nothing but addresses, bandwidth and LIMITS, so that one that runs can be given
    them."""

    def without(container: Container) -> Container:
        own = tuple(msgspec.structs.replace(a, ipv4="", ipv6="", bandwidth=None) for a in container.attachments)
        return msgspec.structs.replace(container, attachments=own, **LIMITS)

    return old != new and without(old) == without(new)
