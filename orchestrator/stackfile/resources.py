"""The top-level networks, volumes, configs and secrets of a stack file."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Set
from typing import Any

from agent.contract.network import Subnet, is_encrypted
from agent.contract.volume import VOLUME_DRIVERS, volume_driver
from orchestrator.stackfile import bandwidth, field_readers, merge
from orchestrator.stackfile.backup_key import x_backup
from orchestrator.stackfile.load_context import LoadContext, dotted
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.model import StackContent, StackNetwork, StackVolume
from orchestrator.stackfile.templates import DRIVER, content_problem
from orchestrator.stackfile.units import parse_bytes

MTU = "com.docker.network.driver.mtu"
MACVLAN, IPVLAN = ("bridge", "private", "vepa", "passthru"), ("l2", "l3", "l3s")
LAN_OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "macvlan": {"parent": (), MTU: (), "macvlan_mode": MACVLAN, "mode": MACVLAN},
    "ipvlan": {"parent": (), MTU: (), "ipvlan_mode": IPVLAN, "mode": IPVLAN, "ipvlan_flag": ("bridge", "private", "vepa")},
}
"""The options of networks on a LAN, with the words that each may be; () is anything."""


def networks_of(reading: LoadContext, document: dict[str, Any]) -> dict[str, StackNetwork]:
    """The top-level networks of *document*, by key. Invalid ones are left out, with a problem in *reading*."""
    out = {}
    for key, value in reading.mapping(document.get("networks"), ("networks",)).items():
        path: Path_ = ("networks", key)
        body = reading.mapping(value, path)
        if not reading.is_valid(path):
            continue
        driver = body.get("driver") or ""
        opts = merge.as_mapping(body.get("driver_opts"))
        if driver not in ("", "overlay") and is_encrypted((k, field_readers.scalar(v)) for k, v in opts.items()):
            # traffic that somebody believes to be secret must not go out in the clear
            reading.check(
                (*path, "driver_opts", "encrypted"),
                f"a network with the driver {driver} cannot be encrypted",
                "take the option out, or the driver: it is overlay by default",
            )
        if driver in LAN_OPTIONS:
            _check_lan(reading, driver, opts, path)
        mtu = field_readers.scalar(opts[MTU]) if MTU in opts else "1500"
        if not (re.fullmatch(r"[0-9]{1,5}", mtu) and 68 <= int(mtu) < 1 << 16):
            reading.flaw((*path, "driver_opts", MTU), f"{mtu!r} is not an MTU", "a number from 68 to 65535")
        subnets = _subnets(reading, body, driver, path)
        external = body.get("external")
        _external_alone(reading, body, path)
        given = body.get("name") or (external.get("name") if isinstance(external, dict) else None)
        name = str(given or (key if field_readers.flag(external) else f"{reading.name}_{key}"))
        if len(name) > 255:
            reading.problem(path, f"the name {name[:40]}… has more than 255 characters")
            continue
        out[key] = StackNetwork(
            key=key,
            name=name,
            driver="" if driver == "default" else driver,
            subnets=subnets,
            internal=field_readers.flag(body.get("internal")),
            ipv6=field_readers.flag(body.get("enable_ipv6")),
            external=field_readers.flag(external),
            options=_pairs(body.get("driver_opts")),
            labels=_pairs(body.get("labels")),
            where=str(reading.mark(path)),
            bandwidth=bandwidth.read(reading, body.get(bandwidth.KEY), (*path, bandwidth.KEY)),
        )
    return out


def _subnets(reading: LoadContext, body: dict[str, Any], driver: str, path: Path_) -> tuple[Subnet, ...]:
    """The valid pools of `ipam.config` of a network; the others are problems."""
    subnets: list[Subnet] = []
    ipam = reading.mapping(body.get("ipam"), (*path, "ipam"))
    for number, pool in enumerate(reading.sequence(ipam.get("config"), (*path, "ipam", "config"))):
        at = (*path, "ipam", "config", number)
        if not reading.mapping(pool, at).keys() - {"aux_addresses"}:
            continue  # any pool
        try:
            cidr = ipaddress.ip_network(str(reading.mapping(pool, at).get("subnet")))
        except ValueError as error:
            reading.flaw(at, f"the subnet is not CIDR: {error}", "write it like 172.30.0.0/24")
            continue
        # on a LAN it is somebody's who is there already, or nobody's
        gateway = str(pool.get("gateway") or ("" if driver in LAN_OPTIONS else cidr[1]))
        try:
            inside = not gateway or ipaddress.ip_address(gateway) in cidr
        except ValueError:
            inside = False
        if not inside:
            reading.flaw((*at, "gateway"), f"{gateway} is not an address of {cidr}")
            continue
        found = _pool(reading, pool, at, cidr, gateway)
        if found:
            subnets.append(found)
    return tuple(subnets)


def _check_lan(reading: LoadContext, driver: str, options: Mapping[str, Any], path: Path_) -> None:
    known = LAN_OPTIONS[driver]
    for key, value in options.items():
        at = (*path, "driver_opts", key)
        if key not in known:
            reading.unknown(at, known)
        elif known[key] and value not in known[key]:
            reading.flaw(at, f"{driver} has no {key} {value!r}", f"one of {', '.join(known[key])}")


def _pool(
    reading: LoadContext, pool: dict[str, Any], at: Path_, cidr: ipaddress.IPv4Network | ipaddress.IPv6Network, gateway: str
) -> Subnet | None:
    """One entry of ipam.config, its range and reserved addresses checked."""
    span, reserved = str(pool.get("ip_range") or ""), []
    if span:
        try:
            inner = ipaddress.ip_network(span, strict=False)
            if inner.version != cidr.version or not inner.subnet_of(cidr):  # type: ignore[arg-type]
                raise ValueError(f"it is not inside {cidr}")
            span = str(inner)
        except ValueError as error:
            reading.flaw((*at, "ip_range"), f"{span} is not a range of this subnet: {error}")
            return None
    for name, address in reading.mapping(pool.get("aux_addresses"), (*at, "aux_addresses")).items():
        try:
            if ipaddress.ip_address(str(address)) not in cidr:
                raise ValueError
            reserved.append(str(address))
        except ValueError:
            reading.flaw((*at, "aux_addresses", name), f"{address} is not an address of {cidr}")
    return Subnet(cidr=str(cidr), gateway=gateway, ip_range=span, reserved=tuple(reserved))


def volumes_of(reading: LoadContext, document: dict[str, Any]) -> dict[str, StackVolume]:
    """The top-level volumes of *document*, by key. Invalid ones are left out, with a problem in *reading*."""
    out = {}
    for key, value in reading.mapping(document.get("volumes"), ("volumes",)).items():
        path: Path_ = ("volumes", key)
        body = reading.mapping(value, path)
        if not reading.is_valid(path):
            continue
        driver = volume_driver(str(body.get("driver") or ""))
        if driver in VOLUME_DRIVERS:
            for word in merge.as_mapping(body.get("driver_opts")):
                if word not in VOLUME_DRIVERS[driver]:
                    reading.flaw(
                        (*path, "driver_opts", word),
                        f"the driver {driver} has no such option",
                        f"it has {', '.join(sorted(VOLUME_DRIVERS[driver]))}",
                    )
        if "size" in (options := merge.as_mapping(body.get("driver_opts"))) and driver == "local":
            _volume_size(reading, options, (*path, "driver_opts"))
        external = body.get("external")
        _external_alone(reading, body, path)
        spec = reading.mapping(body.get("x-volume"), (*path, "x-volume"))
        given = body.get("name") or (external.get("name") if isinstance(external, dict) else None)
        out[key] = StackVolume(
            key=key,
            name=str(given or (key if field_readers.flag(external) else f"{reading.name}_{key}")),
            external=field_readers.flag(external),
            follow=field_readers.flag(spec.get("follow")),
            driver=driver,
            options=_pairs(body.get("driver_opts")),
            labels=_pairs(body.get("labels")),
            where=str(reading.mark(path)),
            backup=x_backup(reading, body["x-backup"], (*path, "x-backup")) if "x-backup" in body else None,
        )
    return out


def _volume_size(reading: LoadContext, options: Mapping[str, Any], path: Path_) -> None:
    """Check the size of a volume that is a directory of its node."""
    try:
        parse_bytes(options["size"])
    except ValueError as error:
        reading.flaw((*path, "size"), f"{options['size']!r}: {error}")
    if beside := [key for key in ("type", "device", "o") if options.get(key)]:
        reading.flaw((*path, "size"), f"size is of a directory of the node: it excludes {beside[0]}", "tmpfs has `o: size=…`")


SOURCES = {"config": ("file", "environment", "content"), "secret": ("file", "environment")}


def contents_of(
    reading: LoadContext, document: dict[str, Any], used: Set[tuple[str, str]], needed: Set[tuple[str, str]]
) -> tuple[StackContent, ...]:
    """Configs and secrets that services are given, *used* by kind and key, and what the stack itself has *needed*; the client
    reads what they contain. What of the first cannot be read keeps its services from starting: `unreadable`."""
    out = []
    for kind in ("config", "secret"):
        section = f"{kind}s"
        for key, value in reading.mapping(document.get(section), (section,)).items():
            path: Path_ = (section, key)
            body = reading.mapping(value, path)
            if not reading.is_valid(path):
                continue
            external = body.get("external")
            _external_alone(reading, body, path, besides=("template_driver", "driver", "driver_opts", "labels"))
            given = [s for s in SOURCES[kind] if s in body]
            if kind == "secret" and "driver" in body and not given and not field_readers.flag(external):
                continue  # somebody else's: service.py says so where it is used
            if not field_readers.flag(external) and len(given) != 1:
                what = f"has both {' and '.join(given)}" if given else "does not say where its content is"
                reading.problem(path, what, f"use one of {', '.join(f'{s}:' for s in SOURCES[kind])} or external: true")
            elif (kind, key) in used | needed:
                found = unreadable(reading, section, key)
                if found and (kind, key) in needed:
                    reading.check(*found)
                name = body.get("name") or (external.get("name") if isinstance(external, dict) else None)
                driver = field_readers.scalar(body.get("template_driver"))
                content = (
                    None
                    if found or field_readers.flag(external)
                    else _read(reading, given[0], field_readers.scalar(body[given[0]]), path)
                )
                if driver:
                    _check_template(reading, driver, content, given, path)
                out.append(
                    StackContent(
                        kind=kind,
                        key=key,
                        template_driver=driver,
                        external=field_readers.flag(external),
                        where=str(reading.mark(path)),
                        name=str(name or (key if field_readers.flag(external) else f"{reading.name}_{key}")),
                        content=content,
                        problem=f"{reading.mark(found[0])}: {dotted(found[0])}: {found[1]}" if found else "",
                    )
                )
    return tuple(out)


def _check_template(reading: LoadContext, driver: str, content: bytes | None, given: list[str], path: Path_) -> None:
    """Its labels are those of the services that use it: any."""
    if driver != DRIVER:
        reading.check((*path, "template_driver"), f"{driver!r} is not known", f"write {DRIVER}, or leave it out")
        return
    try:
        text = (content or b"").decode()
    except UnicodeDecodeError:
        return reading.check((*path, "template_driver"), "a template is UTF-8, and this is not")
    services = (reading.tree.value.get("services") or {}) if reading.is_valid(("services",)) else {}
    labels = {k: "" for s in services.values() for k in merge.as_mapping((s.get("deploy") or {}).get("labels"))}
    if found := content_problem(text, labels):
        why, line = found
        reading.check((*path, given[0] if given else "template_driver"), f"line {line} of it: {why}")


def unreadable(reading: LoadContext, section: str, key: str) -> tuple[Path_, str] | None:
    """The place in the file at which the config or secret *key* says where its content is, and why it cannot be had; None if
    it can."""
    body = reading.mapping(reading.tree.value[section], (section,))[key]
    if not isinstance(body, dict) or field_readers.flag(body.get("external")):
        return None
    if "environment" in body:
        value = field_readers.scalar(body["environment"])
        there = value in reading.tree.variables.get((section, key), reading.environment)
        return None if there else ((section, key, "environment"), f"variable {value} is not set")
    if "file" in body:
        file = reading.host_path(field_readers.scalar(body["file"]))
        try:
            file.open("rb").close()
        except OSError as error:
            return (section, key, "file"), f"{file} cannot be read: {error.strerror}"
    return None


def _read(reading: LoadContext, source: str, value: str, path: Path_) -> bytes:
    if source == "content":
        return value.encode()
    if source == "environment":
        return reading.tree.variables.get(path, reading.environment).get(value, "").encode()
    return reading.host_path(value).read_bytes()


def _external_alone(reading: LoadContext, body: Mapping[str, Any], path: Path_, besides: Collection[str] = ()) -> None:
    """What somebody else made is taken as it is: only its name can be said, once, and what tools of old wrote *besides*."""
    external = body.get("external")
    if isinstance(external, dict) and external.get("name") and body.get("name") not in (None, external["name"]):
        reading.problem((*path, "external", "name"), f"is {external['name']!r}, and name is {body['name']!r}", "keep name")
    for key in body if field_readers.flag(external) or isinstance(external, dict) else ():
        if key in ("external", "name", *besides) or key.startswith("x-"):
            continue
        if path[0] == "networks":  # Docker Compose lets it pass
            reading.warn((*path, key), "has no effect beside external: it exists already, as it is")
        else:
            reading.problem((*path, key), "conflicts with external: it exists already, as it is", "remove one of the two")


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, field_readers.scalar(v)) for k, v in merge.as_mapping(value).items()))
