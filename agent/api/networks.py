"""Engine API: networks. Source: Docker Engine API v1.43, section Network."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from agent.api.filters import Filters, labelled, truth
from agent.api.keys import ENGINE, answer, body
from agent.api.translate import attachment
from agent.engine.engine import Engine
from agent.engine.networks import DEFAULT
from agent.errors import BadRequestError, ForbiddenError
from agent.manifest import Network, Subnet

BUILTIN = ("host", "none")
Document = dict[str, Any]


def _document(engine: Engine, network: Network) -> Document:
    members = {
        r.id: {"Name": r.name, "EndpointID": r.id, "MacAddress": e.mac, "IPv4Address": _in(network, e.ipv4),
               "IPv6Address": _in(network, e.ipv6)}
        for r in engine.networks.attached.values() for e in r.endpoints if e.network == network.name
    }
    labels = dict(network.labels)
    if network.stack:
        labels |= {"com.docker.compose.project": network.stack, "com.docker.compose.network": network.key}
    pools = [{k: v for k, v in (("Subnet", s.cidr), ("Gateway", s.gateway), ("IPRange", s.ip_range)) if v}
             for s in network.subnets]
    return {
        "Name": network.name, "Id": engine.networks.identity(network.name), "Driver": network.driver,
        "Scope": "local", "Internal": network.internal, "Attachable": network.attachable, "Ingress": False,
        "EnableIPv6": any(":" in s.cidr for s in network.subnets), "Options": dict(network.options),
        "Labels": labels, "Containers": members, "Created": "0001-01-01T00:00:00Z", "ConfigOnly": False,
        "ConfigFrom": {"Network": ""}, "IPAM": {"Driver": "default", "Options": None, "Config": pools},
    }


def _in(network: Network, address: str) -> str:
    """*address* with the length of its subnet's prefix."""
    cidr = next((s.cidr for s in network.subnets if (":" in s.cidr) == (":" in address)), "")
    return f"{address}/{cidr.rpartition('/')[2]}" if address else ""


def _builtin(engine: Engine, name: str) -> Document:
    return {
        "Name": name, "Id": engine.networks.identity(name), "Driver": name if name == "host" else "null", "Scope": "local",
        "IPAM": {"Driver": "default", "Options": None, "Config": []}, "Labels": {}, "Options": {}, "Containers": {},
        "Internal": False, "Attachable": False, "Ingress": False, "EnableIPv6": False, "Created": "0001-01-01T00:00:00Z",
        "ConfigOnly": False, "ConfigFrom": {"Network": ""},
    }


async def listing(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    # the default one is there for whoever asks, and is made when the first container is on it
    known = {DEFAULT: Network(name=DEFAULT)} | engine.networks.all
    out = [_document(engine, n) for n in known.values()] + [_builtin(engine, n) for n in BUILTIN]
    return answer(Filters(request).chosen(out, {
        "name": lambda n, v: v in n["Name"], "id": lambda n, v: n["Id"].startswith(v), "driver": lambda n, v: n["Driver"] == v,
        "label": lambda n, v: labelled(n["Labels"], v), "scope": lambda n, v: n["Scope"] == v,
        "type": lambda n, v: (n["Name"] in (*BUILTIN, DEFAULT)) == (v == "builtin"),
        "dangling": lambda n, v: (not n["Containers"] and n["Name"] not in BUILTIN) == truth(v),
    }))


async def create(request: web.Request) -> web.Response:
    engine, wish = request.app[ENGINE], body(request)
    pools = (wish.get("IPAM") or {}).get("Config") or ()
    if not wish.get("Name"):
        raise BadRequestError("Name is missing: what shall the network be called?")
    network = engine.networks.create(Network(
        name=wish["Name"], driver=wish.get("Driver") or "bridge", internal=bool(wish.get("Internal")),
        attachable=bool(wish.get("Attachable")),
        subnets=tuple(
            Subnet(cidr=p["Subnet"], gateway=p.get("Gateway") or "", ip_range=p.get("IPRange") or "",
                   reserved=tuple((p.get("AuxiliaryAddresses") or {}).values()))
            for p in pools if p.get("Subnet")
        ),
        options=tuple(sorted((wish.get("Options") or {}).items())),
        labels=tuple(sorted((wish.get("Labels") or {}).items())),
    ), ipv6=bool(wish.get("EnableIPv6")))
    return answer({"Id": engine.networks.identity(network.name), "Warning": ""}, status=201)


async def inspect(request: web.Request) -> web.Response:
    engine, name = request.app[ENGINE], request.match_info["name"]
    if builtin := next((b for b in BUILTIN if name in (b, engine.networks.identity(b))), ""):
        return answer(_builtin(engine, builtin))
    return answer(_document(engine, engine.networks.get(name)))


async def remove(request: web.Request) -> web.Response:
    engine, name = request.app[ENGINE], request.match_info["name"]
    if builtin := next((b for b in (*BUILTIN, DEFAULT) if name in (b, engine.networks.identity(b))), ""):
        raise ForbiddenError(f"{builtin} is a pre-defined network and cannot be removed")
    engine.networks.remove(name)
    return web.Response(status=204)


async def connect(request: web.Request) -> web.Response:
    engine, wish = request.app[ENGINE], body(request)
    network = engine.networks.get(request.match_info["name"])
    settings = wish.get("EndpointConfig") or {}
    await engine.connect(engine.find(wish.get("Container") or ""), attachment(network.name, settings))
    return web.Response(status=200)


async def disconnect(request: web.Request) -> web.Response:
    engine, wish = request.app[ENGINE], body(request)
    await engine.disconnect(engine.find(wish.get("Container") or ""), request.match_info["name"])
    return web.Response(status=200)


async def prune(request: web.Request) -> web.Response:
    """Delete networks that no container is on and no stack has."""
    engine = request.app[ENGINE]
    on = {e.network for r in engine.records.values() for e in r.endpoints}
    spare = [n for n in engine.networks.all.values() if not n.stack and n.name not in on and n.name != DEFAULT]
    gone = Filters(request).chosen(spare, {"label": lambda n, v: labelled(dict(n.labels), v), "until": lambda n, v: True})
    for network in gone:
        engine.networks.remove(network.name)
    return answer({"NetworksDeleted": [n.name for n in gone]})
