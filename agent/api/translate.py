"""The Engine API's container documents, to and from a Container. Source: Docker Engine API v1.43, ContainerCreate."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from agent.errors import BadRequestError
from agent.manifest import Attachment, Container, Device, DeviceRate, DeviceRequest, Healthcheck, Mount, Port, Ulimit
from agent.trees.extract import quoted

Document = dict[str, Any]
LOG_DRIVERS = ("json-file", "local", "none", "syslog", "journald")


def _words(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise BadRequestError(f"{quoted(value)!r} is no command line: {error}") from None
    return tuple(str(v) for v in value)  # type: ignore[attr-defined]


def _userns_mode(word: str) -> Literal["", "host", "auto"]:
    """Docker's words, and Podman's. Raises BadRequestError."""
    if word in ("", "host"):
        return "host" if word else ""
    if word in ("auto", "private"):
        return "auto"
    raise BadRequestError(f"UsernsMode {word!r}: host, or auto for a user namespace of its own")


def _port(text: str) -> int:
    """Raises BadRequestError."""
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise BadRequestError(f"port {quoted(text)!r}: a number from 1 to 65535")
    return int(text)


def _ports(host: Document) -> tuple[Port, ...]:
    out = []
    for key, bindings in (host.get("PortBindings") or {}).items():
        target, _, protocol = key.partition("/")
        for binding in bindings or [{}]:
            out.append(Port(
                target=_port(target), published=_port(binding.get("HostPort") or "0"), protocol=protocol or "tcp",
                host_ip=binding.get("HostIp") or "",
            ))
    return tuple(out)


def _mounts(body: Document, host: Document) -> tuple[Mount, ...]:
    out = []
    for bind in host.get("Binds") or ():
        parts = bind.split(":")
        if len(parts) < 2:  # a place alone is one for an anonymous volume
            out.append(Mount(kind="volume", target=bind))
            continue
        options = parts[2].split(",") if len(parts) > 2 else []
        is_path = parts[0].startswith("/")
        out.append(Mount(
            kind="bind" if is_path else "volume", source=parts[0], target=parts[1], read_only="ro" in options,
            create_host_path=is_path,
        ))
    for mount in host.get("Mounts") or ():
        extra = mount.get("TmpfsOptions") or {}
        out.append(Mount(
            kind=mount["Type"], source=mount.get("Source", ""), target=mount["Target"],
            read_only=bool(mount.get("ReadOnly")), size=int(extra.get("SizeBytes") or 0),
        ))
    for target, options in (host.get("Tmpfs") or {}).items():
        words = tuple(w for w in options.split(",") if w)
        out.append(Mount(kind="tmpfs", target=target, options=words))
    taken = {m.target for m in out}
    out += [Mount(kind="volume", target=t) for t in body.get("Volumes") or {} if t not in taken]
    return tuple(out)


def _health(document: Document | None) -> Healthcheck | None:
    if not document:
        return None
    second = 1e9
    return Healthcheck(
        test=tuple(document.get("Test") or ()),
        interval_s=(document.get("Interval") or 0) / second or 30.0,
        timeout_s=(document.get("Timeout") or 0) / second or 30.0,
        retries=document.get("Retries") or 3,
        start_period_s=(document.get("StartPeriod") or 0) / second,
    )


RATES = {"BlkioWeightDevice": ("weight", "Weight"), "BlkioDeviceReadBps": ("read_bps", "Rate"),
         "BlkioDeviceWriteBps": ("write_bps", "Rate"), "BlkioDeviceReadIOps": ("read_iops", "Rate"),
         "BlkioDeviceWriteIOps": ("write_iops", "Rate")}


def _rates(host: Document) -> tuple[DeviceRate, ...]:
    return tuple(
        DeviceRate(what=what, path=one["Path"], rate=int(one[field]))
        for key, (what, field) in RATES.items() for one in host.get(key) or ()
    )


def attachment(name: str, settings: Document, mac: str = "") -> Attachment:
    """A network of a create or connect request, with its endpoint's settings."""
    ipam = settings.get("IPAMConfig") or {}
    return Attachment(
        network=name, ipv4=ipam.get("IPv4Address") or "", ipv6=ipam.get("IPv6Address") or "",
        mac=settings.get("MacAddress") or mac, aliases=tuple(settings.get("Aliases") or ()),
        link_local=tuple(ipam.get("LinkLocalIPs") or ()), gw_priority=settings.get("GwPriority") or 0,
    )


def container(body: Document) -> Container:
    """The Container that a create request describes. Raises BadRequestError, ValueError."""
    host: Document = body.get("HostConfig") or {}
    if not body.get("Image"):
        raise BadRequestError("Image is missing")
    mode = host.get("NetworkMode") or ""
    endpoints = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    own_network = mode in ("", "default", "bridge", "host", "none") or ":" in mode
    names = list(endpoints) or ([] if own_network else [mode])
    attachments = []
    for name in names:
        if name in ("host", "none"):
            continue
        settings = endpoints.get(name) or {}
        attachments.append(attachment(name, settings, mac=body.get("MacAddress") or "" if len(names) == 1 else ""))
    if not attachments and body.get("MacAddress") and mode in ("", "default", "bridge"):
        attachments.append(attachment("bridge", {}, mac=body["MacAddress"]))
    policy, logging = host.get("RestartPolicy") or {}, host.get("LogConfig") or {}
    if (driver := logging.get("Type") or "json-file") not in LOG_DRIVERS:
        raise BadRequestError(f"logging driver {driver!r} is not known; there is {', '.join(LOG_DRIVERS)}")
    return Container(
        image=body["Image"],
        entrypoint=_words(body.get("Entrypoint")),
        command=_words(body.get("Cmd")),
        environment=tuple((k, v) for k, _, v in (e.partition("=") for e in body.get("Env") or () if "=" in e)),
        user=body.get("User") or "",
        working_dir=body.get("WorkingDir") or "",
        hostname=body.get("Hostname") or "",
        domainname=body.get("Domainname") or "",
        labels=tuple(sorted((body.get("Labels") or {}).items())),
        tty=bool(body.get("Tty")),
        stdin_open=bool(body.get("OpenStdin")), stdin_once=bool(body.get("StdinOnce")),
        stop_signal=body.get("StopSignal") or "",
        stop_grace_s=float(body.get("StopTimeout") or 10),
        healthcheck=_health(body.get("Healthcheck")),
        init=bool(host.get("Init")),
        read_only=bool(host.get("ReadonlyRootfs")),
        privileged=bool(host.get("Privileged")),
        cap_add=tuple(host.get("CapAdd") or ()),
        cap_drop=tuple(host.get("CapDrop") or ()),
        security_opt=tuple(host.get("SecurityOpt") or ()),
        restart=policy.get("Name") or "no",
        restart_max=policy.get("MaximumRetryCount") or 0,
        cpus=(host.get("NanoCpus") or 0) / 1e9,
        cpu_shares=host.get("CpuShares") or 0, cpu_period=host.get("CpuPeriod") or 0, cpu_quota=host.get("CpuQuota") or 0,
        cpu_rt_period=host.get("CpuRealtimePeriod") or 0, cpu_rt_runtime=host.get("CpuRealtimeRuntime") or 0,
        cpuset=host.get("CpusetCpus") or "",
        memory=host.get("Memory") or 0,
        memory_swap=host.get("MemorySwap") or 0, memory_reservation=host.get("MemoryReservation") or 0,
        swappiness=s if (s := host.get("MemorySwappiness")) is not None and s >= 0 else None,
        oom_score_adj=host.get("OomScoreAdj") or 0, oom_kill_disable=bool(host.get("OomKillDisable")),
        blkio_weight=host.get("BlkioWeight") or 0, blkio=_rates(host), cgroup_parent=host.get("CgroupParent") or "",
        cgroup_mode=host.get("CgroupnsMode") or "", annotations=tuple(sorted((host.get("Annotations") or {}).items())),
        device_rules=tuple(host.get("DeviceCgroupRules") or ()),
        pids=host.get("PidsLimit") or 0,
        shm_size=host.get("ShmSize") or 64 << 20,
        ulimits=tuple(Ulimit(name=u["Name"], soft=u["Soft"], hard=u["Hard"]) for u in host.get("Ulimits") or ()),
        sysctls=tuple(sorted((host.get("Sysctls") or {}).items())),
        devices=tuple(
            Device(source=d["PathOnHost"], target=d["PathInContainer"], permissions=d.get("CgroupPermissions", "rwm"))
            for d in host.get("Devices") or ()
        ),
        device_requests=tuple(
            DeviceRequest(driver=d.get("Driver") or "", count=d.get("Count") or (0 if d.get("DeviceIDs") else 1),
                          ids=tuple(d.get("DeviceIDs") or ()),
                          capabilities=tuple(w for some in d.get("Capabilities") or () for w in some))
            for d in host.get("DeviceRequests") or ()
        ),
        mounts=_mounts(body, host),
        volumes_from=tuple(host.get("VolumesFrom") or ()),
        network_mode=mode if mode in ("host", "none") or ":" in mode else "",
        pid_mode=host.get("PidMode") or "",
        ipc_mode=ipc if (ipc := host.get("IpcMode") or "") == "host" or ipc.startswith("container:") else "",
        uts_mode=host.get("UTSMode") or "",
        userns_mode=_userns_mode(host.get("UsernsMode") or ""),
        group_add=tuple(host.get("GroupAdd") or ()),
        attachments=tuple(attachments),
        ports=_ports(host), expose=tuple(body.get("ExposedPorts") or ()),
        extra_hosts=tuple((n, a) for n, _, a in (e.partition(":") for e in host.get("ExtraHosts") or ())),
        dns=tuple(host.get("Dns") or ()),
        dns_search=tuple(host.get("DnsSearch") or ()),
        dns_opt=tuple(host.get("DnsOptions") or ()),
        links=tuple((alias or source, source) for source, _, alias in (w.partition(":") for w in host.get("Links") or ())),
        log_driver=driver, log_options=tuple(sorted((logging.get("Config") or {}).items())),
    )


def all_published(wish: Container, exposed: Iterable[str]) -> Container:
    """*wish* with each of the ports *exposed* (`80/tcp`) published somewhere, but for those that are published already."""
    taken = {f"{p.target}/{p.protocol}" for p in wish.ports}
    more = [name.partition("/") for name in dict.fromkeys(exposed) if name not in taken]
    ports = tuple(Port(target=_port(target), protocol=protocol or "tcp") for target, _, protocol in more)
    return msgspec.structs.replace(wish, ports=(*wish.ports, *ports))
