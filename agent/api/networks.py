"""Engine API: networks. Source: Docker Engine API v1.48, section Network."""

from __future__ import annotations

import ipaddress
from typing import Any

from aiohttp import web

from agent.api import checks
from agent.api.app_keys import ENGINE, answer, body
from agent.api.describe import endpoint_id
from agent.api.filters import Filters, labelled, moment_of, one_of, truth
from agent.api.translate import attachment, links_of
from agent.containers.logs import instant
from agent.contract.container import Attachment
from agent.contract.network import Network, Subnet
from agent.contract.printable import quoted
from agent.contract.times import timestamp
from agent.engine import changing
from agent.engine.engine import Engine
from agent.engine.networks.table import DEFAULT_NETWORK, network_id
from agent.errors import BadRequestError, ConflictError, ForbiddenError, NoSwarmError, NotFoundError

BUILTIN = ("host", "none")
NEVER = "0001-01-01T00:00:00Z"
Document = dict[str, Any]


def _document(engine: Engine, network: Network) -> Document:
    members = {
        r.id: {
            "Name": r.name,
            "EndpointID": endpoint_id(r, network.name),
            "MacAddress": e.mac,
            "IPv4Address": _in(network, e.ipv4),
            "IPv6Address": _in(network, e.ipv6),
        }
        for r in engine.networks.endpoints.attached.values()
        for e in r.endpoints
        if e.network == network.name
    }
    pools = [
        {
            k: v
            for k, v in (
                ("Subnet", s.cidr),
                ("Gateway", s.gateway),
                ("IPRange", s.ip_range),
                ("AuxiliaryAddresses", dict(zip(s.reserved_names, s.reserved, strict=False))),
            )
            if v
        }
        for s in network.subnets
    ]
    return {
        "Name": network.name,
        "Id": network_id(network.name),
        "Driver": network.driver,
        "Scope": "local",
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "EnableIPv6": any(":" in s.cidr for s in network.subnets),
        "Options": dict(network.options),
        "Labels": network.own_labels,
        "Containers": members,
        "Created": network.created or NEVER,
        "ConfigOnly": False,
        "EnableIPv4": True,
        "ConfigFrom": {"Network": ""},
        "IPAM": {"Driver": "default", "Options": dict(network.ipam_options) or None, "Config": pools},
    }


def _in(network: Network, address: str) -> str:
    """*address* with the length of its subnet's prefix."""
    cidr = next((s.cidr for s in network.subnets if (":" in s.cidr) == (":" in address)), "")
    return f"{address}/{cidr.rpartition('/')[2]}" if address else ""


def _builtin(engine: Engine, name: str) -> Document:
    return {
        "Name": name,
        "Id": network_id(name),
        "Driver": name if name == "host" else "null",
        "Scope": "local",
        "IPAM": {"Driver": "default", "Options": None, "Config": []},
        "Labels": {},
        "Options": {},
        "Containers": {},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "EnableIPv6": False,
        "EnableIPv4": True,
        "Created": NEVER,
        "ConfigOnly": False,
        "ConfigFrom": {"Network": ""},
    }


def _everything(engine: Engine) -> list[Document]:
    # the default network is always listed, and is made with its first container
    known = {DEFAULT_NETWORK: Network(name=DEFAULT_NETWORK)} | engine.networks.table.all
    return [_document(engine, n) for n in known.values()] + [_builtin(engine, n) for n in BUILTIN]


NOT_TRUE = """invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")"""
KINDS = one_of("invalid filter: 'type'='{}'", "custom", "builtin")
SCOPES = one_of("invalid filter: 'scope'='{}'", "local", "swarm", "global")


async def listing(request: web.Request) -> web.Response:
    """List networks (NetworkList)."""
    filters = Filters(request)
    filters.check(type=KINDS, dangling=lambda v: truth(v, NOT_TRUE))
    return answer(
        filters.chosen(
            _everything(request.app[ENGINE]),
            {
                "name": lambda n, v: v in n["Name"],
                "id": lambda n, v: n["Id"].startswith(v),
                "driver": lambda n, v: n["Driver"] == v,
                "label": lambda n, v: labelled(n["Labels"], v),
                "scope": lambda n, v: n["Scope"] == v,
                "type": lambda n, v: (n["Name"] in (*BUILTIN, DEFAULT_NETWORK)) == (v == "builtin"),
                "dangling": lambda n, v: (
                    (not n["Containers"] and n["Name"] not in (*BUILTIN, DEFAULT_NETWORK)) == truth(v, NOT_TRUE)
                ),
            },
        )
    )


SWITCHES = tuple(f"com.docker.network.bridge.{name}" for name in ("default_bridge", "enable_icc", "enable_ip_masquerade"))
"""Options of networks that are true or false."""


def _acceptable(payload: Document) -> None:
    """Raises BadRequestError, ForbiddenError, NoSwarmError."""
    name, driver = payload.get("Name", ""), payload.get("Driver") or "bridge"
    if not name.strip():
        raise BadRequestError("Name is missing: give the network's name")
    if name in (*BUILTIN, DEFAULT_NETWORK, "default"):
        raise ForbiddenError(f"operation is not permitted on predefined {name} network")
    if driver in ("host", "null", "none"):
        raise ForbiddenError(f'only one instance of "{driver}" network is allowed')
    if driver == "overlay" or payload.get("Ingress") or payload.get("Scope") == "swarm":
        raise NoSwarmError(
            "This node is not a swarm manager: networks over several nodes are made by the control plane, of a "
            "stack file or with `pystack network create`"
        )
    if payload.get("Scope", "") not in ("", "local"):
        raise BadRequestError(f"network {name}: scope {payload['Scope']!r}: the networks of a node are local")
    if payload.get("ConfigOnly") or payload.get("ConfigFrom", {}).get("Network"):
        raise BadRequestError(f"network {name}: ConfigOnly and ConfigFrom are not known here: say the options at the network")
    if (ipam := payload.get("IPAM", {}).get("Driver", "")) not in ("", "default"):
        raise NotFoundError(f'plugin "{quoted(ipam)}" not found: the address driver is "default"')
    for key, value in payload.get("Options", {}).items():
        if key in SWITCHES and value.lower() not in ("1", "t", "true", "0", "f", "false"):
            raise BadRequestError(
                f'failed to parse {key} value: {quoted(value)} (strconv.ParseBool: parsing "{quoted(value)}": invalid syntax)'
            )
    if payload.get("EnableIPv4") is False:
        raise BadRequestError(f"network {name}: EnableIPv4=false: a network has IPv4 addresses here, and may have IPv6 too")


async def create(request: web.Request) -> web.Response:
    """Create a network (NetworkCreate)."""
    engine, payload = request.app[ENGINE], body(request)
    _acceptable(payload)
    network = engine.networks.table.create(
        Network(
            name=payload["Name"],
            driver=payload.get("Driver") or "bridge",
            internal=payload.get("Internal", False),
            attachable=payload.get("Attachable", False),
            subnets=tuple(
                Subnet(
                    cidr=p["Subnet"],
                    gateway=p.get("Gateway", ""),
                    ip_range=p.get("IPRange", ""),
                    reserved=tuple(p.get("AuxiliaryAddresses", {}).values()),
                    reserved_names=tuple(p.get("AuxiliaryAddresses", {})),
                )
                for p in payload.get("IPAM", {}).get("Config", ())
                if p.get("Subnet")
            ),
            options=tuple(sorted(payload.get("Options", {}).items())),
            labels=tuple(sorted(payload.get("Labels", {}).items())),
            created=timestamp(),
            ipam_options=tuple(sorted(payload.get("IPAM", {}).get("Options", {}).items())),
        ),
        ipv6=payload.get("EnableIPv6", False),
    )
    _tell(engine, "create", network)
    return answer({"Id": network_id(network.name), "Warning": ""}, 201)


def _tell(engine: Engine, action: str, network: Network) -> None:
    engine.events.emit("network", action, network_id(network.name), {"name": network.name, "type": network.driver})


def _found(engine: Engine, name: str) -> str:
    """The name of the network that *name* is, its ID, or the beginning of that. Raises NotFoundError, BadRequestError."""
    known = {DEFAULT_NETWORK, *BUILTIN, *engine.networks.table.all}
    if name in known:
        return name
    hits = [n for n in known if network_id(n).startswith(name)]
    if len(hits) > 1:
        raise BadRequestError(f"network {name} is ambiguous ({len(hits)} matches found on ID prefix)")
    if not hits:
        raise NotFoundError(f"network {name} not found")
    return hits[0]


async def inspect(request: web.Request) -> web.Response:
    """Describe a network (NetworkInspect)."""
    engine = request.app[ENGINE]
    if (scope := request.query.get("scope", "")) and SCOPES(scope) != "local":
        raise NotFoundError(f"network {request.match_info['name']} not found in scope {scope}")
    name = _found(engine, request.match_info["name"])
    return answer(_builtin(engine, name) if name in BUILTIN else _document(engine, engine.networks.table.get(name)))


async def remove(request: web.Request) -> web.Response:
    """Remove a network without endpoints (NetworkDelete)."""
    engine = request.app[ENGINE]
    name = _found(engine, request.match_info["name"])
    if name in (*BUILTIN, DEFAULT_NETWORK):
        raise ForbiddenError(f"{name} is a pre-defined network and cannot be removed")
    network = engine.networks.table.get(name)
    try:
        engine.networks.remove(name)
    except ConflictError as error:
        raise ForbiddenError(f"error while removing network: {error}") from error
    _tell(engine, "destroy", network)
    return web.Response(status=204)


def addressable(engine: Engine, payload: Attachment) -> None:
    """The addresses that *payload* asks for are those of its network, where that is there, and names are of networks that have
    any. Raises BadRequestError."""
    if payload.aliases and payload.network == DEFAULT_NETWORK:
        raise BadRequestError("network-scoped alias is supported only for containers in user defined networks")
    asked = [address for address in (payload.ipv4, payload.ipv6) if address]
    if asked and payload.network == DEFAULT_NETWORK:
        raise BadRequestError("user specified IP address is supported on user defined networks only")
    network = engine.networks.table.all.get(payload.network)
    for address in asked if network else ():
        assert network
        if not any(ipaddress.ip_address(address) in ipaddress.ip_network(s.cidr) for s in network.subnets):
            raise BadRequestError(f"Invalid address {address}: It does not belong to any of this network's subnets")


def _of_creation(network: str) -> BadRequestError:
    return BadRequestError(f"container cannot be disconnected from {network} network or connected to {network} network")


async def connect(request: web.Request) -> web.Response:
    """Attach a container to a network (NetworkConnect)."""
    engine, request_body = request.app[ENGINE], body(request)
    name, settings = _found(engine, request.match_info["name"]), request_body.get("EndpointConfig", {})
    record = engine.containers.find(request_body.get("Container", ""))
    if name == "none":
        raise BadRequestError(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    if name in BUILTIN:
        raise _of_creation(name)
    checks.refuse([*checks.endpoint(name, settings)])
    payload = attachment(name, settings)
    addressable(engine, payload)
    await changing.connect(engine.context, record, payload, links_of(settings))
    if record.asked:
        endpoints = record.asked["NetworkingConfig"]["EndpointsConfig"] | {name: settings}
        engine.containers.transition(record, asked=record.asked | {"NetworkingConfig": {"EndpointsConfig": endpoints}})
    return web.Response(status=200)


async def disconnect(request: web.Request) -> web.Response:
    """Detach a container from a network (NetworkDisconnect)."""
    engine, payload = request.app[ENGINE], body(request)
    name, container = _found(engine, request.match_info["name"]), payload.get("Container", "")
    try:
        record = engine.containers.find(container)
    except NotFoundError:
        if not payload.get("Force"):
            raise
        raise NotFoundError(f"endpoint {container} not found") from None
    if name in BUILTIN and record.container.network_mode == name:
        raise _of_creation(name)
    if name in BUILTIN:
        raise ConflictError(f"container {record.id} is not connected to network {name}")
    await changing.disconnect(engine.context, record, name)
    return web.Response(status=200)


async def prune(request: web.Request) -> web.Response:
    """Delete networks that no container is on and no stack has."""
    engine = request.app[ENGINE]
    on = {e.network for r in engine.containers.records.values() for e in r.endpoints}
    on |= {a.network for r in engine.containers.records.values() for a in r.container.attachments}
    spare = [n for n in engine.networks.table.all.values() if not n.stack and n.name not in on and n.name != DEFAULT_NETWORK]
    filters = Filters(request)
    filters.check(until=moment_of)
    gone = filters.chosen(
        spare,
        {
            "label": lambda n, v: labelled(n.own_labels, v),
            "label!": lambda n, v: not labelled(n.own_labels, v),
            "until": lambda n, v: bool(n.created) and instant(n.created) < moment_of(v),
        },
    )
    for network in gone:
        engine.networks.remove(network.name)
        _tell(engine, "destroy", network)
    engine.events.emit("network", "prune", "", {"reclaimed": "0"})
    return answer({"NetworksDeleted": [n.name for n in gone]})
