"""`ports:` of a service. Source: Compose Specification, 05-services.md, "ports"."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal

from agent.contract.container import Port
from orchestrator.stackfile.field_readers import Fields, ServiceContext, scalar
from orchestrator.stackfile.marked_document import Path_

_PORT = re.compile(
    r"(?:(?:\[(?P<v6>[0-9a-fA-F:]+)\]|(?P<v4>[0-9]+(?:\.[0-9]+){1,3})):)?(?:(?P<pub>\d+(?:-\d+)?)?:)?(?P<target>\d+(?:-\d+)?)"
    r"(?:/(?P<proto>tcp|udp|sctp))?\Z"
)


def ports(draft: ServiceContext, value: Any, path: Path_) -> Fields:
    out: list[Port] = []
    for number, item in enumerate(draft.reading.sequence(value, path)):
        at = (*path, number)
        mode: Literal["ingress", "host"] = "ingress"
        if isinstance(item, dict):
            short = f"{item['published']}:" if item.get("published") not in (None, "") else ""
            host = scalar(item.get("host_ip"))
            host = f"[{host}]:" if ":" in host else f"{host}:" if host else ""
            if item.get("mode", "ingress") not in ("ingress", "host"):
                draft.problem((*at, "mode"), f"{scalar(item['mode'])!r} is no mode", "ingress or host")
            mode = "host" if item.get("mode") == "host" else "ingress"
            item = f"{host}{short}{item.get('target', '')}/{item.get('protocol', 'tcp')}"
            if host and not short:
                item = f"{host}:" + item[len(host) :]
        try:
            out += split_port(scalar(item), mode)
        except ValueError as error:
            what, _, fix = str(error).partition("\n")
            draft.problem(at, what, fix)
    return {"ports": tuple(dict.fromkeys(out))}


def split_port(text: str, mode: Literal["ingress", "host"] = "ingress") -> list[Port]:
    """[HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL], a port each. Raises ValueError: what is wrong, and on a second line the fix."""
    match = _PORT.match(text)
    if not match:
        raise ValueError(f"{text!r} is no port\n[HOST_IP:][PUBLISHED:]TARGET[/tcp|udp]")
    host = match["v6"] or match["v4"] or ""
    if host:
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError:
            raise ValueError(f"{host} is no IP address") from None
    target, published = _range(match["target"]), _range(match["pub"] or "")
    if published and len(published) != len(target) and len(target) != 1:
        raise ValueError(f"{len(published)} published ports for {len(target)} container ports")
    bad = [p for p in (*target, *published) if not (0 < p < 65536)]
    if bad and not (bad == [0] and not published):
        raise ValueError(f"port {bad[0]} does not exist: TCP and UDP ports end at 65535\nchoose 1 to 65535")
    if published and len(target) == 1 and len(published) > 1:
        published = published[:1]  # a range for one container port means "one of these"
    return [
        Port(
            target=inside,
            published=published[index] if published else 0,
            protocol=match["proto"] or "tcp",
            host_ip=host,
            mode=mode,
        )
        for index, inside in enumerate(target)
    ]


def _range(span: str) -> list[int]:
    if not span:
        return []
    low, _, high = span.partition("-")
    return list(range(int(low), min(int(high or low), int(low) + 65535) + 1))
