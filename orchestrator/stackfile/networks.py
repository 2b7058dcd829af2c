"""What a service is attached to: `networks:`, `network_mode:`, `mac_address:`, `links:`. Source: 05-services.md."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from agent.contract.container import MAC_ADDRESS, Attachment
from orchestrator.stackfile import bandwidth
from orchestrator.stackfile.field_readers import Fields, ServiceContext, scalar
from orchestrator.stackfile.marked_document import Path_

OUTSIDE = "network_mode:"
"""Before the name of a network that the file does not declare."""
ENDPOINT = "com.docker.network.endpoint"


def networks(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.networks: a list of names, or settings for each; in the order of priority."""
    body = dict.fromkeys(value) if isinstance(value, list) else draft.reading.mapping(value, path)
    out: list[Attachment] = []
    order: list[float] = []
    for name, item in body.items():
        at = (*path, name)
        settings = draft.reading.mapping(item, at)
        local = []
        for number, address in enumerate(draft.reading.sequence(settings.get("link_local_ips"), (*at, "link_local_ips"))):
            found = _address(scalar(address))
            if found:
                local.append(str(found))
            else:
                draft.keep_from_starting((*at, "link_local_ips", number), f"{scalar(address)!r} is not an IP address")
        given = {4: "", 6: ""}
        for key, version in (("ipv4_address", 4), ("ipv6_address", 6)):
            if key in settings:
                found = _address(scalar(settings[key]))
                if found and found.version == version:
                    given[version] = scalar(settings[key])
                else:
                    draft.keep_from_starting((*at, key), f"{scalar(settings[key])!r} is not an IPv{version} address")
        mac = scalar(settings.get("mac_address"))
        if mac and not re.fullmatch(MAC_ADDRESS, mac):
            draft.keep_from_starting((*at, "mac_address"), f"{mac!r} is not a MAC address", "write 02:42:ac:11:00:02")
            mac = ""
        first = "" if out else scalar(draft.body.get("mac_address"))
        out.append(
            Attachment(
                network=name,
                ipv4=given[4],
                ipv6=given[6],
                mac=mac or (first if re.fullmatch(MAC_ADDRESS, first) else ""),
                aliases=tuple(map(scalar, settings.get("aliases") or ())),
                link_local=tuple(local),
                gw_priority=int(float(settings.get("gw_priority") or 0)),
                bandwidth=bandwidth.read(draft.reading, settings.get(bandwidth.KEY), (*at, bandwidth.KEY)),
                **_endpoint(draft, settings, at),
            )
        )
        order.append(-float(settings.get("priority") or 0))
    return {"attachments": tuple(a for _, a in sorted(zip(order, out, strict=True), key=lambda pair: pair[0]))}


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None where *text* is not an address, or one with a zone, which means nothing on another host."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _endpoint(draft: ServiceContext, settings: dict[str, Any], path: Path_) -> Fields:
    """The interface's name and kernel parameters: keys of their own, or options as Docker has them."""
    options = {k: scalar(v) for k, v in draft.reading.mapping(settings.get("driver_opts"), (*path, "driver_opts")).items()}
    name = scalar(settings.get("interface_name")) or options.pop(f"{ENDPOINT}.ifname", "")
    sysctls = []
    for pair in filter(None, options.pop(f"{ENDPOINT}.sysctls", "").split(",")):
        key, sep, value = pair.partition("=")
        if not sep or "IFNAME" not in key:
            draft.problem(
                (*path, "driver_opts", f"{ENDPOINT}.sysctls"),
                f"{pair!r} is not a parameter of an interface",
                "write net.ipv4.conf.IFNAME.log_martians=1",
            )
            continue
        sysctls.append((key, value))
    for key in options:
        draft.reading.warn((*path, "driver_opts", key), "is not known to any driver here and has no effect")
    return {"interface": name, "sysctls": tuple(sysctls)}


def mac_address(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """The address on the first network; one of `networks` may say its own."""
    if not re.fullmatch(MAC_ADDRESS, scalar(value)):
        draft.keep_from_starting(path, f"{scalar(value)!r} is not a MAC address", "write 02:42:ac:11:00:02")
        return {}
    if draft.body.get("networks"):
        return {}
    return {"attachments": (Attachment(network="default", mac=scalar(value).lower()),)}


def service_links(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """SERVICE or SERVICE:ALIAS: an own name for a service, which is started first."""
    out = []
    for item in draft.reading.sequence(value, path):
        target, _, alias = scalar(item).partition(":")
        out.append(((alias or target).lower(), target))
    return {"links": tuple(out)}


def network_mode(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Read services.*.network_mode."""
    mode = scalar(value)
    if draft.body.get("networks"):
        draft.problem(path, "cannot stand beside networks", "keep one of them")
    if mode in ("host", "none", "bridge", "") or mode.startswith(("service:", "container:")):
        return {"network_mode": mode}
    if mode == "default":
        return {"network_mode": "bridge"}
    # the name of a network that is there, as Docker takes it
    return {"network_mode": "", "attachments": (Attachment(network=f"{OUTSIDE}{mode}"),)}
