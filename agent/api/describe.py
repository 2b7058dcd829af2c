"""Containers as the Engine API shows them. Source: Docker Engine API v1.43, ContainerInspect, ContainerList."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from agent.api import bandwidth
from agent.api.host_config import host_config, network_mode
from agent.api.translate import BRIDGE
from agent.containers.logs import instant
from agent.contract.ages import human_duration
from agent.contract.container import Attachment, Container, Mount
from agent.engine import prepare
from agent.engine.engine import Engine
from agent.engine.networks.table import network_id
from agent.engine.records import Record, labels_with_image
from agent.errors import AgentError
from agent.files import used
from agent.images.reference import parse
from agent.images.store import Image
from agent.images.types import RunConfig
from netplugins.bridge import address_mac

Document = dict[str, Any]

DOCKER_STATES = {
    "pending": "created",
    "pulling": "created",
    "starting": "created",
    "stopping": "running",
}


def state_word(record: Record) -> str:
    """Docker's word for the state: a container that never ran is "created", even if its start failed."""
    if record.state in ("failed", "starting") and record.started:
        return "restarting" if record.state == "starting" and record.restarts else "exited"
    if record.state == "failed":
        return "created"
    return DOCKER_STATES.get(record.state, record.state)


def _bindings(record: Record) -> Document:
    out: dict[str, list[Document]] = {}
    for port in record.ports:
        for host in (port.host_ip,) if port.host_ip else ("0.0.0.0", "::"):
            out.setdefault(f"{port.target}/{port.protocol}", []).append({"HostIp": host, "HostPort": str(port.published)})
    return out


def sizes(engine: Engine, record: Record) -> dict[str, int]:
    """Bytes of its writable layer, and of that with its image. Blocks."""
    image = image_of(engine, record)
    upper = engine.paths.container(record.id) / "upper"
    own = upper / prepare.MOUNT_TABLE[1:]  # written by nobody inside
    written = used(upper) - (own.lstat().st_size if own.is_symlink() else 0)
    return {"SizeRw": written, "SizeRootFs": written + (engine.sizes.image(image) if image else 0)}


def image_of(engine: Engine, record: Record) -> Image | None:
    """The image of *record*; None if it is gone."""
    try:
        return engine.images.image(record.image_id)
    except AgentError:
        return None


def summary(engine: Engine, record: Record, version: int = 48) -> Document:
    """A row of the container list (ContainerSummary of the Docker Engine API), as of API version 1.*version*."""
    image = image_of(engine, record)
    config = (image.config.config if image else None) or RunConfig()
    command, arguments = _command(record.container, config)
    return {
        "Id": record.id,
        "Names": [f"/{record.name}", *(f"/{other.name}/{alias}" for other, alias in engine.containers.linked_to(record))],
        "Image": _shown_image(record, image),
        "ImageID": image.id if image else record.image_id,
        "Command": " ".join([command, *map(_quoted, arguments)]).strip(),
        "Created": int(instant(record.created)),
        "State": state_word(record),
        "Status": status_words(record),
        "Ports": _ports(record, config),
        "Labels": labels_with_image(record, config.labels),
        "Mounts": mounts(engine, record),
        "HostConfig": {"NetworkMode": network_mode(record, version)},
        "NetworkSettings": {"Networks": networks(engine, record, version)},
    }


def _shown_image(record: Record, image: Image | None) -> str:
    """The name of its image as it was requested, or the image's ID if that name means another image by now."""
    if image is None or not image.names or parse_or_none(record.image) in image.names:
        return record.image if image is None or image.names else image.id
    return image.id


def parse_or_none(text: str) -> str | None:
    """The full name of the image reference *text*; None if it cannot be parsed."""
    try:
        return parse(text).name
    except AgentError:
        return None


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


def _ports(record: Record, config: RunConfig) -> list[Document]:
    """Its ports: published ones, once for each family of addresses, and those that are only exposed."""
    if not record.running:
        return []
    rows: list[Document] = []
    for name, bindings in _exposed(record, config).items():
        span, _, protocol = name.partition("/")
        target, protocol = span.partition("-")[0], protocol or "tcp"
        rows += [
            {"IP": one["HostIp"], "PrivatePort": int(target), "PublicPort": int(one["HostPort"]), "Type": protocol}
            for one in bindings or ()
        ]
        if not bindings:
            rows.append({"PrivatePort": int(target), "Type": protocol})
    return rows


def status_words(record: Record) -> str:
    """The status in words, as `docker ps` shows it: "Up 5 minutes (healthy)"."""
    if record.state in ("running", "stopping"):
        return f"Up {_age(record.started)}" + (f" ({record.health})" if record.health else "")
    if record.state == "paused":
        return f"Up {_age(record.started)} (Paused)"
    if record.state == "restarting":
        return f"Restarting ({record.exit_code})"
    if record.exit_code is None or state_word(record) == "created":
        return "Created"
    return f"Exited ({record.exit_code}) {_age(record.finished)} ago"


def _age(stamp: str) -> str:
    """How long ago, in Docker's words."""
    return human_duration(max(0.0, time.time() - instant(stamp)) if stamp else 0.0)


def networks(engine: Engine, record: Record, version: int = 48) -> Document:
    """Its endpoints by network; while it does not run they have no addresses, and a network need not exist yet."""
    c = record.container
    out: Document = {}
    for e in record.endpoints:
        known = engine.networks.table.all.get(e.network)
        subnets = {":" in s.cidr: s for s in known.subnets} if known else {}
        v4, v6 = subnets.get(False), subnets.get(True)
        payload = next((a for a in c.attachments if a.network == e.network), Attachment(network=e.network))
        mac = e.mac or ("" if known and known.on_lan else address_mac(e.ipv4, e.ipv6))
        ipv4, ipv6 = (e.ipv4, e.ipv6) if record.running else ("", "")
        out[e.network] = _endpoint(record, payload, e.aliases, version) | {
            "NetworkID": network_id(e.network),
            "EndpointID": endpoint_id(record, e.network) if record.running else "",
            "MacAddress": mac if record.running or e.mac else "",
            "IPAddress": ipv4,
            "IPPrefixLen": _length(v4.cidr) if v4 and ipv4 else 0,
            "Gateway": v4.gateway if v4 and ipv4 and known and not known.internal else "",
            "GlobalIPv6Address": ipv6,
            "GlobalIPv6PrefixLen": _length(v6.cidr) if v6 and ipv6 else 0,
            "IPv6Gateway": v6.gateway if v6 and ipv6 else "",
            **({"Bandwidth": bandwidth.shown(e.bandwidth)} if e.bandwidth else {}),
        }
    named = [(a.network, a) for a in c.attachments]
    if c.network_mode in ("host", "none"):
        named.append((c.network_mode, Attachment(network=c.network_mode)))
    for name, payload in named:
        if name not in out:
            builtin = name in ("host", "none")
            out[name] = _endpoint(record, payload, payload.aliases, version) | {
                "NetworkID": network_id(name) if builtin else "",
                "EndpointID": endpoint_id(record, name) if builtin and record.running else "",
                "MacAddress": "",
                "IPAddress": "",
                "IPPrefixLen": 0,
                "Gateway": "",
                "GlobalIPv6Address": "",
                "GlobalIPv6PrefixLen": 0,
                "IPv6Gateway": "",
            }
    return out


def endpoint_id(record: Record, network: str) -> str:
    """The ID of the endpoint of *record* on *network*: 64 hex digits, the same on each call."""
    return hashlib.sha256(f"{record.id} {network}".encode()).hexdigest()


def _endpoint(record: Record, payload: Attachment, aliases: Sequence[str], version: int) -> Document:
    """The requested settings of an endpoint, and its DNS names."""
    addresses = {"IPv4Address": payload.ipv4, "IPv6Address": payload.ipv6, "LinkLocalIPs": list(payload.link_local)}
    asked = {k: v for k, v in addresses.items() if v}
    sent = record.asked.get("NetworkingConfig", {}).get("EndpointsConfig", {}).get(payload.network, {})
    document: Document = {
        "IPAMConfig": asked or None,
        "Links": sent.get("Links"),
        "DriverOpts": sent.get("DriverOpts"),
        # clients before 1.45 look for the short ID among the aliases
        "Aliases": ([*aliases, record.short] if version < 45 and payload.network != BRIDGE else list(aliases)) or None,
    }
    if version >= 44:
        document["DNSNames"] = list(dict.fromkeys([record.name, *aliases, record.short]))
    return document | ({"GwPriority": payload.gw_priority} if version >= 48 else {})


def _length(cidr: str) -> int:
    return int(cidr.rpartition("/")[2])


def mounts(engine: Engine, record: Record) -> list[Document]:
    """The mount points of a container (MountPoint of the Docker Engine API)."""
    out = []
    host = record.asked.get("HostConfig") or {}
    in_table = {m.get("Target") for m in host.get("Mounts") or ()}
    # a tmpfs of --tmpfs is in HostConfig only
    named = {m.target: m for m in record.container.mounts if m.kind != "tmpfs" or m.target in in_table}
    named |= {m.target: m for m in others(engine, record) if m.target not in named}
    binds = (b.split(":") for b in host.get("Binds") or ())
    modes = {words[1]: words[2] if words[2:] else "" for words in binds if words[1:]}
    for target, m in named.items():
        name = m.source or record.anonymous.get(target, "")
        is_volume = m.kind == "volume"
        source = str(engine.volumes.data(name)) if is_volume and name in engine.volumes.all else "" if is_volume else m.source
        out.append(
            {
                "Type": m.kind,
                "Name": name if is_volume else "",
                "Source": source,
                "Destination": target,
                "Driver": engine.volumes.all[name].driver if is_volume and name in engine.volumes.all else "",
                "Mode": modes.get(target, "") or ("z" if is_volume and target in {*modes, *in_table} else ""),
                "RW": not m.read_only,
                "Propagation": m.propagation if m.kind == "bind" else "",
            }
        )
    for target, name in record.anonymous.items():
        if target not in named:
            out.append(
                {
                    "Type": "volume",
                    "Name": name,
                    "Source": str(engine.volumes.data(name)),
                    "Destination": target,
                    "Driver": "local",
                    "Mode": "",
                    "RW": True,
                    "Propagation": "",
                }
            )
    return out


def others(engine: Engine, record: Record) -> list[Mount]:
    """The mounts of the containers that `VolumesFrom` names, as *record* has them; removed ones have none."""
    out: list[Mount] = []
    for text in record.container.volumes_from:
        name, _, mode = text.partition(":")
        try:
            other = engine.containers.find(name)
        except AgentError:
            continue
        volumes = [Mount(kind="volume", source=source, target=target) for target, source in other.anonymous.items()]
        shared = [m for m in other.container.mounts if m.kind in ("bind", "volume") and (m.source or m.kind == "bind")]
        out += [msgspec.structs.replace(m, read_only=m.read_only or mode == "ro") for m in (*shared, *volumes)]
    return out


def _command(c: Container, config: RunConfig) -> tuple[str, list[str]]:
    """The program and its arguments, as the container is started."""
    entrypoint = c.entrypoint if c.entrypoint is not None else config.entrypoint
    command = c.command if c.command is not None else () if c.entrypoint is not None else config.cmd
    words = [*(entrypoint or ()), *(command or ())]
    return (words[0], words[1:]) if words else ("", [])


def inspected(engine: Engine, record: Record, execs: Sequence[str] = (), version: int = 48) -> Document:
    """A container in full (ContainerInspectResponse of the Docker Engine API), as of API version 1.*version*, with the IDs
    *execs*."""
    c, image = record.container, image_of(engine, record)
    config = (image.config.config if image else None) or RunConfig()
    path, arguments = _command(c, config)
    bundle, directory = engine.paths.bundle(record.id), engine.paths.container(record.id)
    etc = prepare.etc(bundle)
    return {
        "Id": record.id,
        "Name": f"/{record.name}",
        "Created": record.created,
        "State": _state(record),
        "Image": image.id if image else "",
        "RestartCount": record.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "Path": path,
        "Args": arguments,
        "ResolvConfPath": str(etc / "resolv.conf"),
        "HostnamePath": str(etc / "hostname"),
        "HostsPath": str(etc / "hosts"),
        "LogPath": str(directory / "log"),
        "MountLabel": record.mount_label,
        "ProcessLabel": record.process_label,
        "AppArmorProfile": "",
        "ExecIDs": execs or None,
        "GraphDriver": {
            "Name": "overlay2",
            "Data": {
                "LowerDir": ":".join(map(str, engine.images.lower(image))) if image else "",
                "UpperDir": str(directory / "upper"),
                "WorkDir": str(directory / "work"),
                "MergedDir": str(bundle / "rootfs"),
            },
        },
        "Config": _config(record, config),
        "HostConfig": host_config(engine, record, version),
        "Mounts": mounts(engine, record),
        "NetworkSettings": _network_settings(engine, record, config, version),
        "Notes": record.notes,
    }


def _network_settings(engine: Engine, record: Record, config: RunConfig, version: int) -> Document:
    """NetworkSettings: each endpoint, and again that of the default route in the keys from before there were networks."""
    attached = networks(engine, record, version)
    default: Document = next((attached[e.network] for e in record.endpoints if e.default), {})
    flat = (
        "IPAddress",
        "IPPrefixLen",
        "Gateway",
        "MacAddress",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPv6Gateway",
        "EndpointID",
    )
    return {
        "Bridge": "",
        "SandboxID": record.id if record.running else "",
        "HairpinMode": False,
        "SandboxKey": str(engine.networks.endpoints.netns(record)) if record.running else "",
        "Ports": _exposed(record, config) if record.running else {},
        "Networks": attached,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{k: default.get(k, 0 if "Len" in k else "") for k in flat},
    }


def _state(record: Record) -> Document:
    state: Document = {
        "Status": state_word(record),
        "Running": record.running or record.state == "restarting",
        "Paused": record.state == "paused",
        "Restarting": record.state == "restarting",
        "OOMKilled": record.oom_killed,
        "Dead": False,
        "Pid": record.process.pid if record.process else 0,
        "ExitCode": record.exit_code or 0,
        "Error": record.error,
        "StartedAt": record.started or "0001-01-01T00:00:00Z",
        "FinishedAt": record.finished or "0001-01-01T00:00:00Z",
    }
    if record.health:
        state["Health"] = {"Status": record.health, "FailingStreak": record.failing_streak, "Log": record.health_log}
    return state


def all_labels(engine: Engine, record: Record) -> dict[str, str]:
    """Its own, and those of its image."""
    image = image_of(engine, record)
    return labels_with_image(record, ((image.config.config if image else None) or RunConfig()).labels)


def exposed(engine: Engine, record: Record) -> list[str]:
    """The ports that the container or its image exposes, as PORT/PROTOCOL."""
    image = image_of(engine, record)
    return list(_exposed(record, (image.config.config if image else None) or RunConfig()))


def _exposed(record: Record, config: RunConfig) -> dict[str, list[Document] | None]:
    """Published ports with their bindings, and those that the image exposes and that are not published."""
    asked = [f"{p.target}/{p.protocol}" for p in record.container.ports]
    names = [*(config.exposed_ports or {}), *record.container.expose, *asked]
    bindings = _bindings(record) if record.running else {}
    return {name: bindings.get(name) for name in dict.fromkeys([*names, *bindings])}


def config(record: Record, image: Image) -> Document:
    """The configuration of a container of *image*."""
    return _config(record, image.config.config or RunConfig())


def _config(record: Record, config: RunConfig) -> Document:
    c, asked = record.container, record.asked
    entrypoint = c.entrypoint if c.entrypoint is not None else config.entrypoint
    command = c.command if c.command is not None else () if c.entrypoint is not None else config.cmd
    own = asked.get("Env") or [f"{k}={v}" for k, v in c.environment]
    names = {pair.partition("=")[0] for pair in own}
    inherited = [pair for pair in config.env or () if pair.partition("=")[0] not in names]
    volumes = {m.target: {} for m in c.mounts if m.kind == "volume" and not m.source} | (config.volumes or {})
    document: Document = {
        "Hostname": c.hostname or record.short,
        "Domainname": c.domainname,
        "User": c.user or config.user,
        "AttachStdin": asked.get("AttachStdin", c.stdin_once),
        "AttachStdout": asked.get("AttachStdout", True),
        "AttachStderr": asked.get("AttachStderr", True),
        "Tty": c.tty,
        "OpenStdin": c.stdin_open,
        "StdinOnce": c.stdin_once,
        "Env": [*own, *inherited] or asked.get("Env") if asked else [*own, *inherited],
        "Cmd": list(command) if command else None,
        "Image": record.image,
        "Volumes": volumes or None,
        "WorkingDir": c.working_dir or config.working_dir,
        "Entrypoint": list(entrypoint) if entrypoint else [] if asked.get("Entrypoint") == [] else None,
        "OnBuild": config.on_build,
        "Labels": labels_with_image(record, config.labels),
        "StopSignal": c.stop_signal or config.stop_signal or "SIGTERM",
        "ExposedPorts": {name: {} for name in _exposed(record, config)},
    }
    if asked.get("NetworkDisabled"):
        document["NetworkDisabled"] = True
    if asked.get("MacAddress"):
        document["MacAddress"] = asked["MacAddress"]
    if "StopTimeout" in asked or not asked:
        document["StopTimeout"] = asked.get("StopTimeout", int(c.stop_grace_s))
    if c.healthcheck and asked:
        document["Healthcheck"] = asked["Healthcheck"]
    elif c.healthcheck:
        second = 10**9
        document["Healthcheck"] = {
            "Test": list(c.healthcheck.test),
            "Interval": int(c.healthcheck.interval_s * second),
            "Timeout": int(c.healthcheck.timeout_s * second),
            "Retries": c.healthcheck.retries,
            "StartPeriod": int(c.healthcheck.start_period_s * second),
        }
    elif config.healthcheck:
        document["Healthcheck"] = {k: v for k, v in msgspec.to_builtins(config.healthcheck).items() if v}
    return document
