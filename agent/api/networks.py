"""Engine API: networks. Source: Docker Engine API v1.43, section Network."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from agent.api.keys import ENGINE, body
from agent.engine.engine import Engine
from agent.manifest import Network, Subnet

routes = web.RouteTableDef()


def _document(engine: Engine, network: Network) -> dict[str, Any]:
    members = {
        r.id: {"Name": r.name, "IPv4Address": e.ipv4, "IPv6Address": e.ipv6}
        for r in engine.networks.attached.values() for e in r.endpoints if e.network == network.name
    }
    labels = dict(network.labels)
    if network.stack:
        labels |= {"com.docker.compose.project": network.stack, "com.docker.compose.network": network.key}
    return {
        "Name": network.name, "Id": engine.networks.identity(network.name), "Driver": network.driver,
        "Scope": "local", "Internal": network.internal, "Attachable": False, "Ingress": False,
        "EnableIPv6": any(":" in s.cidr for s in network.subnets), "Options": dict(network.options),
        "Labels": labels, "Containers": members, "Created": "0001-01-01T00:00:00Z",
        "IPAM": {
            "Driver": "default", "Config": [{"Subnet": s.cidr, "Gateway": s.gateway} for s in network.subnets],
        },
    }


@routes.get("/networks")
async def listing(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    out = [_document(engine, n) for n in engine.networks.all.values()]
    out += [
        {"Name": name, "Id": engine.networks.identity(name), "Driver": name if name == "host" else "null",
         "Scope": "local", "IPAM": {"Config": []}, "Labels": {}, "Containers": {}, "Internal": False}
        for name in ("host", "none")
    ]
    return web.json_response(out)


@routes.post("/networks/create")
async def create(request: web.Request) -> web.Response:
    engine, wish = request.app[ENGINE], await body(request)
    pools = (wish.get("IPAM") or {}).get("Config") or ()
    network = engine.networks.create(Network(
        name=wish["Name"], driver=wish.get("Driver") or "bridge", internal=bool(wish.get("Internal")),
        subnets=tuple(Subnet(cidr=p["Subnet"], gateway=p.get("Gateway", "")) for p in pools if p.get("Subnet")),
        options=tuple(sorted((wish.get("Options") or {}).items())),
        labels=tuple(sorted((wish.get("Labels") or {}).items())),
    ))
    return web.json_response({"Id": engine.networks.identity(network.name), "Warning": ""}, status=201)


@routes.get("/networks/{name}")
async def inspect(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    return web.json_response(_document(engine, engine.networks.get(request.match_info["name"])))


@routes.delete("/networks/{name}")
async def remove(request: web.Request) -> web.Response:
    request.app[ENGINE].networks.remove(request.match_info["name"])
    return web.Response(status=204)
