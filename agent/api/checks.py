"""The rules by which Docker's daemon refuses create and update requests, each a function of the request.

agent.api.shapes has checked its shape before. Source: Docker Engine API v1.48, ContainerCreate, ContainerUpdate;
docker-run(1).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent.containers.syslog import SyslogAddress
from agent.contract import selinux
from agent.contract.printable import quoted
from agent.contract.sizes import hugepages, parse_size
from agent.engine.stopping import signal_number
from agent.errors import BadRequestError
from agent.isolation import capabilities

Document = dict[str, Any]
MIB = 1 << 20
POLICIES = ("", "no", "always", "on-failure", "unless-stopped")
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}\Z")
MAC = re.compile(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\Z")
PROPAGATIONS = {"shared", "rshared", "slave", "rslave", "private", "rprivate"}
MODES = PROPAGATIONS | {"ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated"}
_META = {"labels", "labels-regex", "env", "env-regex", "tag"}
LOG_OPTIONS = {
    "json-file": _META | {"max-size", "max-file", "compress", "mode", "max-buffer-size"},
    "local": {"max-size", "max-file", "compress", "mode", "max-buffer-size"},
    "none": set[str](),
    "journald": _META | {"mode", "max-buffer-size"},
    "syslog": _META
    | {
        "syslog-address",
        "syslog-facility",
        "syslog-format",
        "syslog-tls-ca-cert",
        "syslog-tls-cert",
        "syslog-tls-key",
        "syslog-tls-skip-verify",
        "mode",
        "max-buffer-size",
    },
}
"""Logging drivers with the options that each has."""


def name(text: str, shown: str = "") -> None:
    """A container's own name, *shown* to its user. Raises BadRequestError."""
    if not NAME.match(text):
        raise BadRequestError(f"Invalid container name ({quoted(shown or text)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


def policy(host: Document) -> Iterator[str]:
    """The problems of RestartPolicy, and of AutoRemove beside it."""
    asked = host.get("RestartPolicy") or {}
    word, most = asked.get("Name", ""), asked.get("MaximumRetryCount", 0)
    if word not in POLICIES:
        yield f"invalid restart policy '{word}'"
    elif most and word != "on-failure":
        yield f"maximum retry count cannot be used with restart policy '{word}'"
    elif most < 0:
        yield "maximum retry count cannot be negative"
    if host.get("AutoRemove") and word not in ("", "no"):
        yield "can't create 'AutoRemove' container with restart policy"


def memory(host: Document) -> Iterator[str]:
    """The problems of the memory limits (bytes), swappiness, OOM score and shm size."""
    limit, swap, reserved = (host.get(k, 0) for k in ("Memory", "MemorySwap", "MemoryReservation"))
    if limit and limit < 6 * MIB:
        yield "Minimum memory limit allowed is 6MB"
    if reserved and reserved < 6 * MIB:
        yield "Minimum memory reservation allowed is 6MB"
    if limit > 0 and reserved > limit:
        yield "Minimum memory limit can not be less than memory reservation limit, see usage"
    if swap > 0 and not limit:
        yield "You should always set the Memory limit when using Memoryswap limit, see usage"
    if 0 < swap < limit:
        yield "Minimum memoryswap limit should be larger than memory limit, see usage"
    if not -1 <= host.get("MemorySwappiness", -1) <= 100:
        yield f"Invalid value: {host['MemorySwappiness']}, valid memory swappiness range is 0-100"
    if not -1000 <= host.get("OomScoreAdj", 0) <= 1000:
        yield f"Invalid value {host['OomScoreAdj']}, range for oom score adj is [-1000, 1000]"
    if host.get("ShmSize", 0) < 0:
        yield "SHM size can not be less than 0"


def cpu(host: Document) -> Iterator[str]:
    """The problems of the CPU limits, CPU sets and block I/O weight."""
    nano, period, quota = (host.get(k, 0) for k in ("NanoCpus", "CpuPeriod", "CpuQuota"))
    most = os.cpu_count() or 1
    for word, given in (("Period", period), ("Quota", quota)):
        if nano and given:
            yield f"Conflicting options: Nano CPUs and CPU {word} cannot both be set"
    if nano < 0 or nano > most * 10**9:
        yield f"Range of CPUs is from 0.01 to {most}.00, as there are only {most} CPUs available"
    if period and not 1000 <= period <= 10**6:
        yield "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
    if 0 < quota < 1000:
        yield "CPU cfs quota can not be less than 1ms (i.e. 1000)"
    if host.get("CpuShares", 0) < 0:
        yield f"invalid CPU shares ({host['CpuShares']}): value must be a positive integer"
    yield from _sets(host, most)
    try:
        hugepages(tuple((host.get("HugepageLimits") or {}).items()))
    except ValueError as error:
        yield f"HugepageLimits: {error}"
    if (weight := host.get("BlkioWeight", 0)) and not 10 <= weight <= 1000:
        yield "Range of blkio weight is from 10 to 1000"


def _sets(host: Document, most: int) -> Iterator[str]:
    """The problems of the sets of processors and of memory nodes, on a machine of *most* processors."""
    there = {"CpusetCpus": f"0-{most - 1}", "CpusetMems": _memory_nodes()}
    for key, what, things in (("CpusetCpus", "cpuset cpus", "CPUs"), ("CpusetMems", "cpuset mems", "memory nodes")):
        text = host.get(key, "")
        if not text:
            continue
        if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*", text):
            yield f"Invalid value {text} for {what}: invalid format: {text}"
        elif there[key] and _last(text) > _last(there[key]):
            yield f"Requested {things} are not available - requested {text}, available: {there[key]}"


def _last(numbers: str) -> int:
    """The greatest of a set like `0-2,7`."""
    return max(map(int, re.findall(r"[0-9]+", numbers)))


def _memory_nodes() -> str:
    """The memory nodes of this machine (`0-1`); "" where the kernel does not tell. Source: sysfs-devices-node."""
    try:
        return Path("/sys/devices/system/node/online").read_text().strip()
    except OSError:
        return ""


def modes(host: Document) -> Iterator[str]:
    """The problems of the IPC, PID, UTS and cgroup namespace modes and of Isolation."""
    allowed = {
        "IpcMode": ("", "none", "private", "shareable", "host"),
        "PidMode": ("", "host"),
        "UTSMode": ("", "host"),
        "CgroupnsMode": ("", "host", "private"),
    }
    words = {"IpcMode": "IPC mode", "PidMode": "PID mode", "UTSMode": "UTS mode", "CgroupnsMode": "cgroup namespace mode"}
    for key, known in allowed.items():
        value = host.get(key, "")
        joins = value.startswith("container:") and len(value) > len("container:") and key in ("IpcMode", "PidMode")
        if value not in known and not joins:
            yield f"invalid {words[key]}: {value}"
    if host.get("Isolation", "") not in ("", "default"):
        yield f"Invalid isolation: \"{quoted(host['Isolation'])}\" - linux only supports 'default'"


def capability(host: Document) -> Iterator[str]:
    """The problems of CapAdd and CapDrop; see capabilities(7)."""
    for key in ("CapAdd", "CapDrop"):
        for word in host.get(key) or ():
            if word.upper().removeprefix("CAP_") not in (*capabilities.ALL, "ALL"):
                yield f'invalid {key}: unknown capability: "CAP_{word.upper().removeprefix("CAP_")}"'


def hosts(host: Document) -> Iterator[str]:
    """The problems of ExtraHosts: each is NAME:ADDRESS or NAME:host-gateway."""
    for line in host.get("ExtraHosts") or ():
        name, _, address = line.partition(":")
        if not name or not address:
            yield f'bad format for add-host: "{quoted(line)}"'
        elif address != "host-gateway" and not is_address(address.removeprefix("[").removesuffix("]")):
            yield f'invalid IP address in add-host: "{quoted(address)}"'


def security(host: Document) -> Iterator[str]:
    """The problems of SecurityOpt."""
    for option in host.get("SecurityOpt") or ():
        key, _, value = option.replace("=", ":", 1).partition(":")
        known = key in ("label", "apparmor", "seccomp") and value
        if key == "label" and value and (wrong := selinux.problem(value)):
            yield f"invalid --security-opt: {wrong}"
        elif not (
            known
            or option in ("no-new-privileges", "systempaths=unconfined")
            or (key == "no-new-privileges" and value in ("true", "false", "1", "0"))
        ):
            yield f'invalid --security-opt 2: "{option}"'


def logging(host: Document) -> Iterator[str]:
    """The problems of LogConfig: the driver, and the options that it knows."""
    asked = host.get("LogConfig") or {}
    driver = asked.get("Type") or "json-file"
    if driver not in LOG_OPTIONS:
        yield f'error looking up logging plugin {driver}: plugin "{driver}" not found'
        return
    for key in asked.get("Config") or {}:
        if key not in LOG_OPTIONS[driver]:
            yield f"unknown log opt '{key}' for {driver} log driver"
    given = asked.get("Config") or {}
    if given.get("mode", "blocking") not in ("", "blocking", "non-blocking"):
        yield f"logger: logging mode not supported: {quoted(given['mode'])}"
    if given.get("max-buffer-size") and given.get("mode") != "non-blocking":
        yield "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
    if given.get("compress", "false").lower() not in ("", "0", "1", "t", "f", "true", "false"):
        yield f"log opt compress: {quoted(given['compress'])}: true or false"
    if driver == "syslog":
        try:
            SyslogAddress.of(given, "name")
        except BadRequestError as error:
            yield str(error)


def binds(host: Document) -> Iterator[str]:
    """The problems of Binds."""
    for bind in host.get("Binds") or ():
        source, target, mode = _parts(bind)
        is_path, words = source.startswith("/"), [w for w in mode.split(",") if w]
        if bad := [w for w in words if w not in MODES] or (words if {"z", "Z"} <= set(words) else []):
            yield f"invalid mode: {','.join(bad)}"
        where = f'{_specification(bind)}invalid mount config for type "{"bind" if is_path else "volume"}": '
        if not target.startswith("/"):
            yield f"{where}invalid mount path: '{target}' mount path must be absolute"
        elif not target.rstrip("/"):
            yield f"{where}invalid specification: destination can't be '/'"
        if source and not is_path:
            yield from volume(source)
        if is_path and "nocopy" in words:
            yield f"{_specification(bind)}nocopy is for volumes"


def donors(host: Document) -> Iterator[str]:
    """The problems of VolumesFrom: each is CONTAINER, or CONTAINER:MODE."""
    for text in host.get("VolumesFrom") or ():
        name, colon, mode = text.removeprefix("container:").partition(":")
        if not name:
            yield f"invalid volumes-from specification: '{quoted(text)}'"
        elif bad := [w for w in mode.split(",") if colon and w not in MODES - {"nocopy"}]:
            yield f"invalid mode: {quoted(','.join(bad))}"


def _parts(bind: str) -> tuple[str, str, str]:
    """Source, target and mode of a bind; only a target is an anonymous volume."""
    source, _, rest = bind.partition(":")
    target, _, mode = rest.partition(":")
    return (source, target, mode) if target else ("", source, "")


def mounts(host: Document) -> Iterator[str]:
    """The problems of Mounts, and targets that stand twice."""
    targets = [*(host.get("Tmpfs") or ()), *(_parts(bind)[1] for bind in host.get("Binds") or ())]
    for mount in host.get("Mounts") or ():
        yield from _mount(mount)
        targets.append(mount.get("Target", ""))
    seen: set[str] = set()
    for target in (t.rstrip("/") or "/" for t in targets):
        if target in seen:
            yield f"Duplicate mount point: {target}"
        if target == "/":
            yield "invalid mount: destination can't be '/'"
        seen.add(target)
    for option in host.get("StorageOpt") or ():
        if option.lower() != "size":
            yield f"Unknown option {option}"
        elif problem := _bytes(host["StorageOpt"][option]):
            yield problem


def _bytes(text: str) -> str:
    try:
        parse_size(text)
    except ValueError:
        return f"invalid size: '{quoted(text)}'"
    return ""


def _specification(bind: str) -> str:
    return f"invalid volume specification: '{bind}': "


def volume(text: str) -> Iterator[str]:
    """A volume's own name."""
    if not NAME.match(text):
        if len(text) == 1:
            yield f"create {text}: volume name is too short, names should be at least two alphanumeric characters"
        else:
            yield (
                f'create {quoted(text)}: "{quoted(text)}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )


def _mount(mount: Document) -> Iterator[str]:
    kind, target, source = (mount.get(k, "") for k in ("Type", "Target", "Source"))
    where = f'invalid mount config for type "{kind}"'
    if kind not in ("bind", "volume", "tmpfs", "image"):
        yield f"{where}: mount type unknown"
        return
    if not target:
        yield f"{where}: field Target must not be empty"
    elif not target.startswith("/"):
        yield f"{where}: invalid mount path: '{target}' mount path must be absolute"
    if kind in ("bind", "image") and not source:
        yield f"{where}: field Source must not be empty"
    elif kind == "bind" and not source.startswith("/"):
        yield f"{where}: invalid mount path: '{source}' mount path must be absolute"
    elif kind == "bind" and not (mount.get("BindOptions") or {}).get("CreateMountpoint") and not os.path.lexists(source):
        yield f"{where}: bind source path does not exist: {source}"
    elif kind == "volume" and source:
        yield from volume(source)
    elif kind == "tmpfs" and source:
        yield f"{where}: field Source must not be specified"
    owners = {"BindOptions": "bind", "VolumeOptions": "volume", "TmpfsOptions": "tmpfs", "ImageOptions": "image"}
    for key, owner in owners.items():
        if mount.get(key) and kind != owner:
            yield f"{where}: field {key} must not be specified"
    propagation = (mount.get("BindOptions") or {}).get("Propagation", "")
    if propagation and propagation not in PROPAGATIONS:
        yield f"{where}: invalid propagation mode: {propagation}"


def joined(body: Document, host: Document) -> Iterator[str]:
    """A container in another's network has nothing of its own there."""
    mode = host.get("NetworkMode", "")
    if mode.startswith("container:"):
        conflicts = {
            "hostname and the network mode": body.get("Hostname"),
            "link and the network mode": host.get("Links"),
            "dns and the network mode": host.get("Dns"),
            "custom host-to-IP mapping and the network mode": host.get("ExtraHosts"),
            "mac-address and the network mode": body.get("MacAddress"),
            "port publishing and the container type network mode": host.get("PortBindings") or host.get("PublishAllPorts"),
            "port exposing and the container type network mode": body.get("ExposedPorts"),
        }
        for words, there in conflicts.items():
            if there:
                yield f"conflicting options: {words}"
    if mode == "host" and host.get("Links"):
        yield "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
    if host.get("UTSMode") == "host" and body.get("Hostname"):
        yield "conflicting options: hostname and the UTS mode"


def ports(body: Document, host: Document) -> Iterator[str]:
    """The problems of ExposedPorts and PortBindings."""
    for key in (*(body.get("ExposedPorts") or ()), *(host.get("PortBindings") or ())):
        if not re.fullmatch(r"[0-9]{1,5}(/(tcp|udp|sctp))?", key) or not 0 < int(key.partition("/")[0]) < 65536:
            port, _, protocol = key.partition("/")
            known = protocol in ("", "tcp", "udp", "sctp")
            yield f'invalid port specification: "{quoted(port)}"' if known else f"invalid proto: {quoted(protocol)}"
    for key, bindings in (host.get("PortBindings") or {}).items():
        for one in bindings:
            text, address = one.get("HostPort", ""), one.get("HostIp", "")
            if text and (not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", text) or int(text.rpartition("-")[2]) > 65535):
                yield f"invalid port specification: port {quoted(text)} does not exist, for {key}"
            if address and not is_address(address):
                yield f"port {key}: {quoted(address)!r} is not an IP address"


def is_address(text: str) -> bool:
    """Whether *text* is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def process(body: Document) -> Iterator[str]:
    """The problems of the process: environment, directory, MAC address, signal, health check, stop timeout. Raises
    BadRequestError for an unknown signal.
    """
    for pair in body.get("Env") or ():
        if not pair.partition("=")[0]:
            yield f"invalid environment variable: {pair}"
    if (folder := body.get("WorkingDir", "")) and not folder.startswith("/"):
        yield f"the working directory '{folder}' is invalid, it needs to be an absolute path"
    if (mac := body.get("MacAddress", "")) and not MAC.match(mac):
        yield f"invalid MAC address: {quoted(mac)}: it is not of the form 02:42:ac:11:00:02"
    if word := body.get("StopSignal", ""):
        signal_number(word)
    check = body.get("Healthcheck") or {}
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        if check.get(key, 0) < 0 or 0 < check.get(key, 0) < 10**6:
            yield f"{key} in Healthcheck cannot be less than 1ms"
    if check.get("Retries", 0) < 0:
        yield "Retries in Healthcheck cannot be negative"
    test = check.get("Test") or []
    if test and test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        yield f"Unknown healthcheck type {test[0]!r}: CMD, CMD-SHELL and NONE are known"
    if (wait := body.get("StopTimeout", 0)) < -1:
        yield f"StopTimeout {wait}: seconds, or -1 to wait for ever"


def endpoints(body: Document, host: Document) -> Iterator[str]:
    """The problems of each endpoint in NetworkingConfig."""
    for network, one in ((body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}).items():
        yield from endpoint(network, one, host.get("NetworkMode", ""))


def endpoint(network: str, one: Document, mode: str = "") -> Iterator[str]:
    """An endpoint's settings, in a create or connect request."""
    del mode
    where = f"invalid endpoint settings for network {network}"
    if (mac := one.get("MacAddress", "")) and not MAC.match(mac):
        yield f"{where}: invalid MAC address: {quoted(mac)}: it is not of the form 02:42:ac:11:00:02"
    given = one.get("IPAMConfig") or {}
    for key, version in (("IPv4Address", 4), ("IPv6Address", 6)):
        if (text := given.get(key, "")) and (not is_address(text) or ipaddress.ip_address(text).version != version):
            yield f"{where}: {quoted(text)!r} is not an IP address of version {version}"
    for text in given.get("LinkLocalIPs") or ():
        if not is_address(text):
            yield f"{where}: {quoted(text)!r} is not an IP address"


def places(body: Document, host: Document) -> Iterator[str]:
    """The problems of the targets of Volumes and Tmpfs: each is an absolute path, and not the root."""
    for target in (*(body.get("Volumes") or ()), *(host.get("Tmpfs") or ())):
        where = _specification(target) if target in (body.get("Volumes") or ()) else ""
        if not target.startswith("/"):
            yield f"{where}invalid mount path: '{target}' mount path must be absolute"
        elif target.rstrip("/") == "":
            yield f"{where}destination can't be '/'"


OF_HOST: tuple[Callable[[Document], Iterator[str]], ...] = (
    policy,
    memory,
    cpu,
    modes,
    capability,
    hosts,
    security,
    logging,
    binds,
    donors,
    mounts,
)
OF_BOTH: tuple[Callable[[Document, Document], Iterator[str]], ...] = (joined, ports, endpoints, places)


def create(body: Document) -> None:
    """Raises BadRequestError with the first rule that *body* breaks."""
    host = body.get("HostConfig") or {}
    problems = [*process(body)]
    for rule in OF_HOST:
        problems += rule(host)
    for both in OF_BOTH:
        problems += both(body, host)
    refuse(problems)


def warnings(host: Document) -> Iterator[str]:
    """What Docker's daemon says of requests that it fulfils all the same."""
    if host.get("NetworkMode") == "host" and (host.get("PortBindings") or host.get("PublishAllPorts")):
        yield "Published ports are discarded when using host network mode"
    if host.get("OomKillDisable") and not host.get("Memory"):
        yield (
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running "
            "out of resources."
        )


def update(body: Document) -> None:
    """Raises BadRequestError."""
    refuse([*policy(body), *memory(body), *cpu(body)])


def refuse(problems: list[str]) -> None:
    """Raises BadRequestError with the first of *problems*, if there are any."""
    if problems:
        raise BadRequestError(problems[0])
