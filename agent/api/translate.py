"""The Engine API's container documents, to and from a Container. Source: Docker Engine API v1.48, ContainerCreate."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from agent.api import bandwidth, checks, plain_options
from agent.contract.container import Attachment, Container, Device, DeviceRate, DeviceRequest, Healthcheck, Mount, Port, Ulimit
from agent.contract.sizes import parse_size
from agent.errors import BadRequestError

Document = dict[str, Any]
BRIDGE, DEFAULT = "bridge", "default"
UNNAMED_NETWORK = "PystackUnnamedNetwork"
"""A field that `named` adds: whether the bridge was not called by its name."""
FOR_EVER_S = 10.0 * 365 * 86_400


def _entrypoint(words: list[str] | None) -> tuple[str, ...] | None:
    """The entrypoint of a request; one empty word is an empty entrypoint in place of the image's."""
    return None if not words else () if words == [""] else tuple(words)


def named(body: Document) -> Document:
    """*body* with defaults filled in; the network that clients call `default`, or leave out, has its name."""
    host: Document = body.get("HostConfig") or {}
    mode = host.get("NetworkMode") or DEFAULT
    endpoints = ((body.get("NetworkingConfig") or {}).get("EndpointsConfig")) or {}
    if body.get("NetworkDisabled"):
        mode, endpoints = "none", {}
    log: Document = {"Config": {}} | host.get("LogConfig", {})
    return body | {
        UNNAMED_NETWORK: mode == DEFAULT,
        "HostConfig": host
        | {"NetworkMode": BRIDGE if mode == DEFAULT else mode, "LogConfig": log | {"Type": log.get("Type") or "json-file"}},
        "NetworkingConfig": {"EndpointsConfig": {BRIDGE if k == DEFAULT else k: v for k, v in endpoints.items()}},
    }


def _userns_mode(word: str) -> Literal["", "host", "auto"]:
    """Docker's words, and Podman's. Raises BadRequestError."""
    if word in ("", "host"):
        return "host" if word else ""
    if word in ("auto", "private"):
        return "auto"
    raise BadRequestError(f"UsernsMode {word!r}: host, or auto for a user namespace of its own")


def _ports(host: Document) -> tuple[Port, ...]:
    out = []
    for key, bindings in (host.get("PortBindings") or {}).items():
        target, _, protocol = key.partition("/")
        for binding in bindings or [{}]:
            first, _, last = (binding.get("HostPort") or "0").partition("-")
            out.append(
                Port(
                    target=int(target),
                    published=_free(int(first), int(last or first), protocol or "tcp"),
                    protocol=protocol or "tcp",
                    host_ip=binding.get("HostIp") or "",
                )
            )
    return tuple(out)


def _free(first: int, last: int, protocol: str) -> int:
    """The first free port of a range on this host; the last one if none is."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    for port in range(first, last):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("", port))
                return port
            except OSError:
                continue
    return last


def _bind(text: str) -> Mount:
    """`SOURCE:TARGET[:MODE]`, or `TARGET` for an anonymous volume."""
    source, colon, rest = text.partition(":")
    if not colon:
        return Mount(kind="volume", target=text)
    target, _, mode = rest.partition(":")
    words, is_path = mode.split(","), source.startswith("/")
    return Mount(
        kind="bind" if is_path else "volume",
        source=source,
        target=target,
        read_only="ro" in words,
        create_host_path=is_path,
        nocopy="nocopy" in words,
        propagation=next((w for w in words if w in checks.PROPAGATIONS), "rprivate"),
        selinux="Z" if "Z" in words else "z" if "z" in words else "",
    )


def _mount(mount: Document) -> Mount:
    temporary, bind, volume = (mount.get(k) or {} for k in ("TmpfsOptions", "BindOptions", "VolumeOptions"))
    return Mount(
        kind=mount["Type"],
        source=mount.get("Source", ""),
        target=mount["Target"],
        read_only=bool(mount.get("ReadOnly")),
        size=temporary.get("SizeBytes", 0),
        mode=temporary.get("Mode", 0) or 0o1777,
        options=tuple("=".join(pair) for pair in temporary.get("Options") or ()),
        propagation=bind.get("Propagation") or "rprivate",
        recursive=not bind.get("NonRecursive"),
        create_host_path=bool(bind.get("CreateMountpoint")),
        nocopy=bool(volume.get("NoCopy")),
        subpath=volume.get("Subpath", "") or (mount.get("ImageOptions") or {}).get("Subpath", ""),
    )


def _mounts(body: Document, host: Document) -> tuple[Mount, ...]:
    out = [*map(_bind, host.get("Binds") or ()), *map(_mount, host.get("Mounts") or ())]
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
        start_interval_s=(document.get("StartInterval") or 0) / second or 5.0,
    )


RATES = {
    "BlkioWeightDevice": ("weight", "Weight"),
    "BlkioDeviceReadBps": ("read_bps", "Rate"),
    "BlkioDeviceWriteBps": ("write_bps", "Rate"),
    "BlkioDeviceReadIOps": ("read_iops", "Rate"),
    "BlkioDeviceWriteIOps": ("write_iops", "Rate"),
}


def rates(old: tuple[DeviceRate, ...], host: Document) -> tuple[DeviceRate, ...] | None:
    """Limits of disk I/O that were *old* once a request to update has changed those that it names; a rate of 0 takes one away.
    None if it names none."""
    asked = {(one.what, one.path): one for one in _rates(host)}
    if not asked:
        return None
    return tuple(one for one in ({(one.what, one.path): one for one in old} | asked).values() if one.rate)


def _rates(host: Document) -> tuple[DeviceRate, ...]:
    return tuple(
        DeviceRate(what=what, path=one.get("Path", ""), rate=one.get(field, 0))
        for key, (what, field) in RATES.items()
        for one in host.get(key) or ()
    )


def attachment(name: str, settings: Document, mac: str = "") -> Attachment:
    """A network of a create or connect request, with its endpoint's settings."""
    ipam = settings.get("IPAMConfig") or {}
    return Attachment(
        network=name,
        ipv4=ipam.get("IPv4Address") or "",
        ipv6=ipam.get("IPv6Address") or "",
        mac=settings.get("MacAddress") or mac,
        aliases=tuple(settings.get("Aliases") or ()),
        link_local=tuple(ipam.get("LinkLocalIPs") or ()),
        gw_priority=settings.get("GwPriority") or 0,
        bandwidth=bandwidth.of_options(name, settings.get("DriverOpts") or {}),
    )


def _grace(seconds: int | None) -> float:
    """Seconds from the signal to the end: 10 by default; negative is for ever."""
    return 10.0 if seconds is None else FOR_EVER_S if seconds < 0 else float(seconds)


def _paths(host: Document) -> tuple[str, ...]:
    """Empty lists of masked and read-only paths mean that no path of /proc and /sys is hidden."""
    return ("systempaths=unconfined",) if host.get("MaskedPaths") == [] and host.get("ReadonlyPaths") == [] else ()


def links_of(document: Document) -> tuple[tuple[str, str], ...]:
    """(alias, container) of `Links`, written container:alias."""
    pairs = (w.partition(":") for w in document.get("Links") or ())
    return tuple((alias or source, source) for source, _, alias in pairs)


def container(body: Document) -> Container:
    """The Container that a create request describes, after `named`. Raises BadRequestError."""
    host: Document = body["HostConfig"]
    if not body.get("Image"):
        raise BadRequestError("Image is missing: give the container's image")
    mode = host["NetworkMode"]
    endpoints = body["NetworkingConfig"]["EndpointsConfig"]
    attachments = _attachments(body)
    policy, logging = host.get("RestartPolicy") or {}, host.get("LogConfig") or {}
    return Container(
        image=body["Image"],
        **plain_options.fields(body),
        **_process(body),
        **_isolation(host),
        **_limits(host),
        **_devices(host),
        labels=tuple(sorted((body.get("Labels") or {}).items())),
        runtime=host.get("Runtime") or "",
        restart=policy.get("Name") or "no",
        restart_max=policy.get("MaximumRetryCount") or 0,
        mounts=_mounts(body, host),
        network_mode=mode if mode in ("host", "none") or ":" in mode else "",
        attachments=attachments,
        ports=_ports(host),
        expose=tuple(body.get("ExposedPorts") or ()),
        extra_hosts=tuple((n, a) for n, _, a in (e.partition(":") for e in host.get("ExtraHosts") or ())),
        dns_opt=tuple(host.get("DnsOptions") or ()),
        links=tuple(dict.fromkeys((*links_of(host), *(link for one in endpoints.values() for link in links_of(one))))),
        log_driver=logging.get("Type") or "json-file",
        log_options=tuple(sorted((logging.get("Config") or {}).items())),
    )


def _attachments(body: Document) -> tuple[Attachment, ...]:
    """The networks to attach to, the one of NetworkMode first. Raises BadRequestError."""
    mode: str = body["HostConfig"]["NetworkMode"]
    endpoints = body["NetworkingConfig"]["EndpointsConfig"]
    own_network = mode in (BRIDGE, "host", "none") or ":" in mode
    # as in Docker, in any order of the endpoints
    names = list(dict.fromkeys([*([] if own_network and mode not in endpoints else [mode]), *endpoints]))
    attachments = []
    for name in names:
        if name in ("host", "none"):
            continue
        settings = endpoints.get(name) or {}
        attachments.append(attachment(name, settings, mac=body.get("MacAddress") or "" if len(names) == 1 else ""))
    if not attachments and body.get("MacAddress") and mode == BRIDGE:
        attachments.append(attachment(BRIDGE, {}, mac=body["MacAddress"]))
    return tuple(attachments)


def _process(body: Document) -> dict[str, Any]:
    """The fields of a Container about its process and the end of it."""
    return {
        "entrypoint": _entrypoint(body.get("Entrypoint")),
        "command": tuple(cmd) if (cmd := body.get("Cmd")) else None,
        "environment": tuple((k, v) for k, _, v in (e.partition("=") for e in body.get("Env") or () if "=" in e)),
        "environment_dropped": tuple(e for e in body.get("Env") or () if "=" not in e),
        "stdin_once": bool(body.get("StdinOnce")),
        "stop_grace_s": _grace(body.get("StopTimeout")),
        "healthcheck": _health(body.get("Healthcheck")),
    }


def _isolation(host: Document) -> dict[str, Any]:
    """The fields of a Container that describe its rights and namespaces."""
    return {
        "security_opt": (*(host.get("SecurityOpt") or ()), *_paths(host)),
        "cgroup_mode": host.get("CgroupnsMode") or "",
        "pid_mode": host.get("PidMode") or "",
        "ipc_mode": ipc if (ipc := host.get("IpcMode") or "") in ("host", "shareable") or ipc.startswith("container:") else "",
        "userns_mode": _userns_mode(host.get("UsernsMode") or ""),
        "group_add": tuple(host.get("GroupAdd") or ()),
    }


def _limits(host: Document) -> dict[str, Any]:
    """The fields of a Container that limit its resources: memory in bytes, periods and quotas in µs."""
    return {
        "cpus": (host.get("NanoCpus") or 0) / 1e9,
        "cpu_shares": host.get("CpuShares") or 0,
        "cpu_period": host.get("CpuPeriod") or 0,
        "cpu_quota": host.get("CpuQuota") or 0,
        "cpu_rt_period": host.get("CpuRealtimePeriod") or 0,
        "cpu_rt_runtime": host.get("CpuRealtimeRuntime") or 0,
        "cpuset_mems": host.get("CpusetMems") or "",
        "memory_swap": host.get("MemorySwap") or 0,
        "memory_reservation": host.get("MemoryReservation") or 0,
        "swappiness": s if (s := host.get("MemorySwappiness")) is not None and s >= 0 else None,
        "blkio_weight": host.get("BlkioWeight") or 0,
        "blkio": _rates(host),
        "pids": max(0, host.get("PidsLimit") or 0),
        "storage_size": parse_size(host["StorageOpt"]["size"]) if (host.get("StorageOpt") or {}).get("size") else 0,
        "shm_size": host.get("ShmSize") or 64 << 20,
        "ulimits": tuple(
            Ulimit(name=u.get("Name", ""), soft=u.get("Soft", 0), hard=u.get("Hard", 0)) for u in host.get("Ulimits") or ()
        ),
    }


def _devices(host: Document) -> dict[str, Any]:
    """The fields of a Container that describe its devices."""
    return {
        "devices": tuple(
            Device(
                source=d.get("PathOnHost", ""),
                target=d.get("PathInContainer") or d.get("PathOnHost", ""),
                permissions=d.get("CgroupPermissions") or "rwm",
            )
            for d in host.get("Devices") or ()
        ),
        "device_requests": tuple(
            DeviceRequest(
                driver=d.get("Driver") or "",
                count=d.get("Count") or (0 if d.get("DeviceIDs") else 1),
                ids=tuple(d.get("DeviceIDs") or ()),
                capabilities=tuple(w for some in d.get("Capabilities") or () for w in some),
            )
            for d in host.get("DeviceRequests") or ()
        ),
    }


def all_published(payload: Container, exposed: Iterable[str]) -> Container:
    """*payload* with each of the ports *exposed* (`80/tcp`) published somewhere, but for those that are published already."""
    taken = {f"{p.target}/{p.protocol}" for p in payload.ports}
    more = [name.partition("/") for name in dict.fromkeys(exposed) if name not in taken]
    ports = tuple(Port(target=int(target), protocol=protocol or "tcp") for target, _, protocol in more)
    return msgspec.structs.replace(payload, ports=(*payload.ports, *ports))
