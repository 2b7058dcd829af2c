"""The Engine API's container documents, to and from a Container. Source: Docker Engine API v1.43, ContainerCreate."""

from __future__ import annotations

import shlex
from typing import Any, Literal

from agent.engine.records import Record
from agent.errors import BadRequest
from agent.images.store import Image
from agent.images.types import RunConfig
from agent.manifest import Attachment, Container, Device, DeviceRequest, Healthcheck, Mount, Port, Ulimit

Document = dict[str, Any]


def _words(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return tuple(shlex.split(value))
    return tuple(str(v) for v in value)  # type: ignore[attr-defined]


def _userns_mode(word: str) -> Literal["", "host", "auto"]:
    """Docker's words, and Podman's. Raises BadRequest."""
    if word in ("", "host"):
        return "host" if word else ""
    if word in ("auto", "private"):
        return "auto"
    raise BadRequest(f"UsernsMode {word!r}: host, or auto for a user namespace of its own")


def _ports(host: Document) -> tuple[Port, ...]:
    out = []
    for key, bindings in (host.get("PortBindings") or {}).items():
        target, _, protocol = key.partition("/")
        for binding in bindings or [{}]:
            out.append(Port(
                target=int(target), published=int(binding.get("HostPort") or 0), protocol=protocol or "tcp",
                host_ip=binding.get("HostIp") or "",
            ))
    return tuple(out)


def _mounts(body: Document, host: Document) -> tuple[Mount, ...]:
    out = []
    for bind in host.get("Binds") or ():
        parts = bind.split(":")
        if len(parts) < 2:
            raise BadRequest(f"bind {bind!r}: SOURCE:TARGET[:OPTIONS]")
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


def container(body: Document) -> Container:
    """The Container that a create request describes. Raises BadRequest, ValueError."""
    host: Document = body.get("HostConfig") or {}
    if not body.get("Image"):
        raise BadRequest("Image is missing")
    mode = host.get("NetworkMode") or ""
    endpoints = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    own_network = mode in ("", "default", "bridge", "host", "none") or ":" in mode
    names = list(endpoints) or ([] if own_network else [mode])
    attachments = []
    for name in names:
        if name in ("host", "none"):
            continue
        settings = endpoints.get(name) or {}
        ipam = settings.get("IPAMConfig") or {}
        attachments.append(Attachment(
            network=name, ipv4=ipam.get("IPv4Address", ""), ipv6=ipam.get("IPv6Address", ""),
            aliases=tuple(settings.get("Aliases") or ()),
        ))
    policy = host.get("RestartPolicy") or {}
    return Container(
        image=body["Image"],
        entrypoint=_words(body.get("Entrypoint")),
        command=_words(body.get("Cmd")),
        environment=tuple((k, v) for k, _, v in (e.partition("=") for e in body.get("Env") or ())),
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
        cpu_shares=host.get("CpuShares") or 0,
        cpuset=host.get("CpusetCpus") or "",
        memory=host.get("Memory") or 0,
        memory_swap=host.get("MemorySwap") or 0,
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
        ipc_mode="host" if host.get("IpcMode") == "host" else "",
        uts_mode=host.get("UTSMode") or "",
        userns_mode=_userns_mode(host.get("UsernsMode") or ""),
        group_add=tuple(host.get("GroupAdd") or ()),
        attachments=tuple(attachments),
        ports=_ports(host),
        extra_hosts=tuple((n, a) for n, _, a in (e.partition(":") for e in host.get("ExtraHosts") or ())),
        dns=tuple(host.get("Dns") or ()),
        dns_search=tuple(host.get("DnsSearch") or ()),
        dns_opt=tuple(host.get("DnsOptions") or ()),
        log_options=tuple(sorted(((host.get("LogConfig") or {}).get("Config") or {}).items())),
    )


DOCKER_STATES = {
    "pending": "created", "pulling": "created", "starting": "created", "stopping": "running", "failed": "exited",
}


def state_word(record: Record) -> str:
    return DOCKER_STATES.get(record.state, record.state)


def _bindings(record: Record) -> Document:
    out: dict[str, list[Document]] = {}
    for port in record.ports:
        for host in (port.host_ip,) if port.host_ip else ("0.0.0.0", "::"):
            out.setdefault(f"{port.target}/{port.protocol}", []).append(
                {"HostIp": host, "HostPort": str(port.published)}
            )
    return out


def labels(record: Record) -> dict[str, str]:
    """The container's labels, with those of Docker Compose for the tools that look for them."""
    out = dict(record.container.labels)
    if record.stack:
        out |= {
            "com.docker.compose.project": record.stack, "com.docker.compose.service": record.service,
            "com.docker.compose.container-number": record.task.rsplit("-", 1)[-1],
        }
    return out


def summary(record: Record, image: Image | None) -> Document:
    from agent.containers.logs import instant

    return {
        "Id": record.id, "Names": [f"/{record.name}"], "Image": record.image,
        "ImageID": image.id if image else "", "Command": " ".join(record.container.command or ()),
        "Created": int(instant(record.created)), "State": state_word(record), "Status": status_words(record),
        "Ports": [
            {"IP": p.host_ip or "0.0.0.0", "PrivatePort": p.target, "PublicPort": p.published, "Type": p.protocol}
            for p in record.ports if record.running
        ],
        "Labels": labels(record), "Mounts": [],
        "HostConfig": {"NetworkMode": record.container.network_mode or "bridge"},
        "NetworkSettings": {"Networks": networks(record)},
    }


def status_words(record: Record) -> str:
    if record.state in ("running", "stopping"):
        return "Up" + (f" ({record.health})" if record.health else "")
    if record.state == "paused":
        return "Up (Paused)"
    if record.state == "restarting":
        return f"Restarting ({record.exit_code})"
    return f"Exited ({record.exit_code})" if record.exit_code is not None else "Created"


def networks(record: Record) -> Document:
    return {
        e.network: {
            "IPAddress": e.ipv4, "GlobalIPv6Address": e.ipv6, "MacAddress": e.mac, "Aliases": list(e.aliases),
            "EndpointID": record.id, "NetworkID": "",
        }
        for e in record.endpoints
    }


def inspected(record: Record, image: Image | None) -> Document:
    c = record.container
    config = (image.config.config if image else None) or RunConfig()
    state: Document = {
        "Status": state_word(record), "Running": record.running, "Paused": record.state == "paused",
        "Restarting": record.state == "restarting", "OOMKilled": record.oom_killed, "Dead": False,
        "Pid": record.process.pid if record.process else 0, "ExitCode": record.exit_code or 0, "Error": record.error,
        "StartedAt": record.started or "0001-01-01T00:00:00Z", "FinishedAt": record.finished or "0001-01-01T00:00:00Z",
    }
    if record.health:
        state["Health"] = {
            "Status": record.health, "FailingStreak": record.failing_streak, "Log": record.health_log,
        }
    entrypoint = c.entrypoint if c.entrypoint is not None else config.entrypoint
    command = c.command if c.command is not None else config.cmd
    return {
        "Id": record.id, "Name": f"/{record.name}", "Created": record.created, "State": state,
        "Image": image.id if image else "", "RestartCount": record.restarts, "Driver": "overlay2",
        "Platform": "linux", "Path": (entrypoint or command or ("",))[0], "Args": [],
        "Config": {
            "Hostname": c.hostname or record.short, "Image": record.image, "Tty": c.tty, "OpenStdin": c.stdin_open,
            "Env": [f"{k}={v}" for k, v in c.environment], "User": c.user or config.user,
            "Entrypoint": list(entrypoint) if entrypoint else None, "Cmd": list(command) if command else None,
            "WorkingDir": c.working_dir or config.working_dir, "Labels": labels(record),
            "StopSignal": c.stop_signal or config.stop_signal or "SIGTERM", "AttachStdout": True,
        },
        "HostConfig": {
            "NetworkMode": c.network_mode or "bridge", "Memory": c.memory, "NanoCpus": int(c.cpus * 1e9),
            "PidsLimit": c.pids, "UsernsMode": c.userns_mode, "Privileged": c.privileged, "ReadonlyRootfs": c.read_only,
            "RestartPolicy": {"Name": c.restart, "MaximumRetryCount": c.restart_max},
            "PortBindings": _bindings(record), "AutoRemove": record.auto_remove,
            "LogConfig": {"Type": c.log_driver, "Config": dict(c.log_options)},
        },
        "Mounts": [
            {"Type": m.kind, "Source": m.source or record.anonymous.get(m.target, ""), "Destination": m.target,
             "RW": not m.read_only, "Name": m.source if m.kind == "volume" else ""}
            for m in c.mounts
        ],
        "NetworkSettings": {
            "Networks": networks(record), "Ports": _bindings(record),
            "IPAddress": next((e.ipv4 for e in record.endpoints if e.default), ""),
        },
        "Notes": record.notes,
    }
