"""`ports:` and `expose:` of a service. Source: Compose Specification, 05-services.md, "ports", "expose"."""

from __future__ import annotations

import re
from typing import Any, Literal

from agent.contract.container import Port
from orchestrator.stackfile.field_readers import Fields, ServiceContext, scalar
from orchestrator.stackfile.marked_document import Path_
from orchestrator.stackfile.model import PortRange
from orchestrator.stackfile.port_text import PortText, read_ports, span
from orchestrator.stackfile.problem import ShortFormError

_EXPOSED = r"(?i)(?P<span>\d+(?:-\d+)?)(?:/(?P<proto>tcp|udp|sctp))?"


def ports(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """What is published at one port, and what takes one of a range. The last word on a port counts."""
    out: dict[tuple[str, int, int, int, str], Port | PortRange] = {}
    for number, item in enumerate(draft.reading.sequence(value, path)):
        at = (*path, number)
        mode: Literal["ingress", "host"] = "ingress"
        if isinstance(item, dict):
            if item.get("mode", "ingress") not in ("ingress", "host"):
                draft.keep_from_starting((*at, "mode"), f"{scalar(item['mode'])!r} is not a mode", "ingress or host")
            mode = "host" if item.get("mode") == "host" else "ingress"
        try:
            for one in read_ports(short_form(item)):
                out[one.host_ip, one.first, one.last, one.target, one.protocol] = _published(one, mode)
        except ShortFormError as error:
            # a long form is taken apart already: what its parts mean is the engine's to say
            report = draft.keep_from_starting if isinstance(item, dict) and _has_target(item) else draft.problem
            report(at, error.what, error.fix)
    return {
        "ports": tuple(p for p in out.values() if isinstance(p, Port)),
        "port_ranges": tuple(r for r in out.values() if isinstance(r, PortRange)),
    }


def _has_target(item: dict[str, Any]) -> bool:
    return scalar(item.get("target")).isdigit()


def short_form(item: Any) -> str:
    """The long form as text."""
    if not isinstance(item, dict):
        return scalar(item)
    published = f"{item['published']}:" if item.get("published") not in (None, "") else ""
    host = scalar(item.get("host_ip"))
    host = f"[{host}]:" if ":" in host else f"{host}:" if host else ""
    text = f"{host}{published}{item.get('target', '')}/{item.get('protocol') or 'tcp'}"
    return f"{host}:{text[len(host) :]}" if host and not published else text


def _published(one: PortText, mode: Literal["ingress", "host"]) -> Port | PortRange:
    port = Port(target=one.target, published=one.first, protocol=one.protocol, host_ip=one.host_ip, mode=mode)
    return port if one.first == one.last else PortRange(port=port, last=one.last)


def expose(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    """Ports that a service says it listens on, `8000`, `53/udp` or `3000-3010`, for proxies that look for them."""
    out: list[str] = []
    for number, item in enumerate(draft.reading.sequence(value, path)):
        text = scalar(item)
        try:
            match = re.fullmatch(_EXPOSED, text)
            found = span(match["span"]) if match else []
            if not match or not found or not all(0 < port < 65536 for port in found):
                raise ShortFormError(f"{text!r} is not a port")
        except ShortFormError as error:
            draft.problem((*path, number), error.what, "write 8000, 8000-8010 or 8000/udp")
            continue
        out += [f"{port}/{(match['proto'] or 'tcp').lower()}" for port in found]
    return {"expose": tuple(dict.fromkeys(out))}
