"""A container's HostConfig as the Engine API shows it. Source: Docker Engine API v1.48, ContainerInspect, HostConfig."""

from __future__ import annotations

from typing import Any

from agent.api import plain_options
from agent.api.translate import BRIDGE, DEFAULT, RATES, UNNAMED_NETWORK
from agent.contract.container import Container, Mount
from agent.engine.engine import Engine
from agent.engine.records import Record
from agent.errors import AgentError
from agent.isolation import paths

Document = dict[str, Any]
FILLED = (
    "Binds",
    "LogConfig",
    "RestartPolicy",
    "IpcMode",
    "CgroupnsMode",
    "ShmSize",
    "MemorySwap",
    "PidsLimit",
    "Runtime",
    "MaskedPaths",
    "ReadonlyPaths",
    "Init",
    "ConsoleSize",
    "OomKillDisable",
    "Isolation",
    "SecurityOpt",
)
"""Fields that a client may leave empty, and that an answer has the daemon's value of."""
OF_WINDOWS = ("CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth")
"""Fields that are always 0 here."""
LISTS = ("Binds", "Dns", "DnsOptions", "DnsSearch", "Devices", "PortBindings")
"""Fields that are null where a request leaves them out."""


def network_mode(record: Record, version: int) -> str:
    """The network mode as it was requested; before 1.44, a default bridge had another name."""
    asked: str = (record.asked.get("HostConfig") or {}).get("NetworkMode", "")
    c = record.container
    mode = asked or c.network_mode or (c.attachments[0].network if c.attachments else DEFAULT)
    if mode == DEFAULT or (mode == BRIDGE and record.asked.get(UNNAMED_NETWORK)):
        return DEFAULT if version < 44 else BRIDGE
    return mode


def host_config(engine: Engine, record: Record, version: int = 48) -> Document:
    """The HostConfig of the container's create request, or one that would make the same container."""
    c = record.container
    asked: Document = record.asked.get("HostConfig") or {}
    policy = c.restart
    if asked and policy == "no" and version < 44:  # which kept "no" and an empty policy apart
        policy = (asked.get("RestartPolicy") or {}).get("Name", "")
    return {
        **_container(engine, c),
        "AutoRemove": record.auto_remove,
        **(dict.fromkeys(LISTS) if asked else {}),
        **{key: value for key, value in asked.items() if key not in FILLED or value},
        **dict.fromkeys(OF_WINDOWS, 0),
        "NetworkMode": network_mode(record, version),
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": c.restart_max},
        **(
            {"Links": [f"/{_linked(engine, source)}:/{record.name}/{alias}" for alias, source in c.links]}
            if asked.get("Links")
            and network_mode(record, version) in ("default", "bridge")  # elsewhere they are the endpoint's
            else {"Links": None}
            if asked
            else {}
        ),
    }


def _container(engine: Engine, c: Container) -> Document:
    """The HostConfig of *c*."""
    unconfined = c.privileged or c.pid_mode == "host" or c.ipc_mode == "host"
    return {
        "ContainerIDFile": "",
        "LogConfig": {"Type": c.log_driver, "Config": dict(c.log_options)},
        "CgroupnsMode": c.cgroup_mode or "host",
        "GroupAdd": list(c.group_add) or None,
        "IpcMode": c.ipc_mode or "private",
        "Cgroup": "",
        "PidMode": c.pid_mode,
        "SecurityOpt": list(c.security_opt) or (["label=disable"] if unconfined else None),
        "UsernsMode": c.userns_mode,
        "Runtime": c.runtime or engine.runtime.name,
        "Isolation": "",
        "MaskedPaths": None if c.privileged else list(paths.MASKED),
        "ReadonlyPaths": None if c.privileged else list(paths.READ_ONLY),
        "ConsoleSize": [0, 0],
        **plain_options.host_config(c),
        **_network(c),
        **_mounts(c),
        **_devices(c),
        **_limits(c),
    }


def _network(c: Container) -> Document:
    ports: dict[str, list[Document]] = {}
    for p in c.ports:
        ports.setdefault(f"{p.target}/{p.protocol}", []).append(
            {"HostIp": p.host_ip, "HostPort": str(p.published) if p.published else ""}
        )
    return {
        "PortBindings": ports,
        "PublishAllPorts": False,
        "DnsOptions": list(c.dns_opt),
        "ExtraHosts": [f"{name}:{address}" for name, address in c.extra_hosts] or None,
        "Links": [f"{source}:{alias}" for alias, source in c.links] or None,
    }


def _mounts(c: Container) -> Document:
    binds = [f"{m.source}:{m.target}{_mode(m)}" for m in c.mounts if m.kind == "bind" or (m.kind == "volume" and m.source)]
    return {
        "Binds": binds or None,
        "VolumeDriver": "",
        "Tmpfs": {m.target: ",".join(m.options) for m in c.mounts if m.kind == "tmpfs"} or None,
    }


def _mode(m: Mount) -> str:
    words = [*(["ro"] if m.read_only else []), *([m.selinux] if m.selinux else [])]
    return f":{','.join(words)}" if words else ""


def _devices(c: Container) -> Document:
    return {
        "Devices": [
            {"PathOnHost": d.source, "PathInContainer": d.target, "CgroupPermissions": d.permissions} for d in c.devices
        ],
        "DeviceRequests": [
            {
                "Driver": r.driver,
                "Count": 0 if r.ids else r.count,
                "DeviceIDs": list(r.ids) or None,
                "Capabilities": [list(r.capabilities)],
                "Options": {},
            }
            for r in c.device_requests
        ]
        or None,
    }


def _limits(c: Container) -> Document:
    """Limits: memory in bytes, periods and quotas in µs, rates in bytes or operations per second."""
    rates = {
        key: [{"Path": r.path, field: r.rate} for r in c.blkio if r.what == what] or None
        for key, (what, field) in RATES.items()
    }
    return {
        "ShmSize": c.shm_size,
        **({"StorageOpt": {"size": str(c.storage_size)}} if c.storage_size else {}),
        "CpuShares": c.cpu_shares,
        "NanoCpus": int(c.cpus * 1e9),
        "BlkioWeight": c.blkio_weight,
        "CpuPeriod": c.cpu_period,
        "CpuQuota": c.cpu_quota,
        "CpuRealtimePeriod": c.cpu_rt_period,
        "CpuRealtimeRuntime": c.cpu_rt_runtime,
        "CpusetMems": c.cpuset_mems,
        "MemoryReservation": c.memory_reservation,
        "MemorySwap": c.memory_swap or min(c.memory * 2, (1 << 63) - 1),
        "MemorySwappiness": c.swappiness,
        "PidsLimit": c.pids or None,
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in c.ulimits] or None,
        "KernelMemory": 0,
        "KernelMemoryTCP": 0,
        "CpuCount": 0,
        **rates,
    }


def _linked(engine: Engine, source: str) -> str:
    """The name of a container that another is linked to."""
    try:
        return engine.containers.find(source).name
    except AgentError:
        return source
