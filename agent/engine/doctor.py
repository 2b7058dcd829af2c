"""Checks every layer of this node's networks: kernel, rules, names, ports, sysctls, programs; and its volumes."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterable

from agent import programs
from agent.disk_watch import Room
from agent.engine.engine import Engine
from agent.engine.networks.host import mtu_of
from agent.engine.networks.networks import Networks
from agent.engine.networks.translate import Desired
from netplugins import firewall, foreign_firewalls, guard
from netplugins.doctor import REPAIR, Finding, examine
from netplugins.linux import netlink, netns
from netplugins.linux.sysctl import forwarding_off
from netplugins.resolver import message

ANSWER_S = 1.0


async def diagnose(engine: Engine) -> list[Finding]:
    """All findings of this node, those that are well included."""
    networks = engine.networks
    labels = {str(networks.endpoints.netns(r)): f"container {r.name}" for r in networks.endpoints.attached.values()}
    labels |= {networks.table.link(n.name): f"network {n.name}" for n in networks.table.all.values()}

    desired = networks.desired()

    def look() -> list[Finding]:
        rules = desired.ruleset() if desired.policies else None
        for item in desired.objects:
            if path := getattr(item, "netns", ""):
                labels.setdefault(item.name, labels.get(path, path))
        return examine(desired.objects, desired.fdb, labels) + _firewall(rules) + _others(networks, rules)

    kernel = await networks.run_undisturbed(look)
    return [
        *_programs(),
        *_disk(engine),
        *_sysctls(networks),
        *_underlay(networks),
        *kernel,
        *await asyncio.to_thread(_names, networks),
        *await _ports(networks, desired),
        *_services(networks),
        *await asyncio.to_thread(_volumes, engine),
    ]


async def repair(engine: Engine, findings: Iterable[Finding]) -> list[Finding]:
    """Repair what can be repaired. Returns the findings of a second look, with those that are gone marked as repaired."""
    bad = [f for f in findings if not f.ok]
    if not bad:
        return list(findings)
    await engine.networks.rebuild({f.item for f in bad if f.item})
    after = await diagnose(engine)
    still = {(f.check, f.target) for f in after if not f.ok}
    mended = [
        Finding(check=f.check, target=f.target, ok=True, detail=f"put right: {f.detail}", repaired=True)
        for f in bad
        if (f.check, f.target) not in still
    ]
    checks = {f.check for f in mended}
    return [*mended, *(f for f in after if not (f.ok and f.check in checks))]


def _one(check: str, target: str, wrong: list[Finding], well: str) -> list[Finding]:
    return wrong or [Finding(check=check, target=target, ok=True, detail=well)]


def _programs() -> list[Finding]:
    wrong = [
        Finding(check="program", target=" or ".join(n), detail=f"it is not installed: {why}", fix=f"apt-get install {package}")
        for n, package, why in programs.absent()
    ]
    return _one("program", "node", wrong, f"{', '.join(n[0] for n, _, _ in programs.NEEDED)} are installed")


def _disk(engine: Engine) -> list[Finding]:
    path = engine.paths.root
    problem = Room.at(path).problem(path)
    wrong = (
        [Finding(check="disk", target=str(path), detail=problem, fix="`pystack image prune`, or a larger disk")]
        if problem
        else []
    )
    return _one("disk", "node", wrong, "it has room")


def _sysctls(networks: Networks) -> list[Finding]:
    if not networks.forwards:
        return []
    wrong = [
        Finding(check="sysctl", target=name.replace("/", "."), detail="it is 0: the host forwards nothing", fix=REPAIR)
        for name in forwarding_off(networks.table.link(n.name) for n in networks.table.all.values())
    ]
    return _one("sysctl", "node", wrong, "the host forwards")


def _underlay(networks: Networks) -> list[Finding]:
    if not networks.host.underlay:
        return []
    with netlink.Socket() as sock:
        held = {address for _, address in sock.addresses()}
    if netlink.packed(networks.host.underlay) not in held:
        return [
            Finding(
                check="underlay",
                target=networks.host.underlay,
                detail="no link has the address by which other nodes reach this one",
                fix="give it back to its link, or add the node again under its new address",
            )
        ]
    now = mtu_of(networks.host.underlay)
    wrong = (
        [
            Finding(
                check="mtu",
                target=f"underlay {networks.host.underlay}",
                detail=f"its MTU is {now}, and networks were made for {networks.host.capabilities.mtu}",
                fix=f"set it to {networks.host.capabilities.mtu}, or start the agent again",
            )
        ]
        if now < networks.host.capabilities.mtu
        else []
    )
    return _one("underlay", networks.host.underlay, wrong, f"MTU {now}")


def _firewall(rules: firewall.Ruleset | None) -> list[Finding]:
    if rules is None:
        return []
    wrong = [
        Finding(check="firewall", target=f"table inet {rules.table}", detail=line, fix=REPAIR)
        for line in firewall.differences(rules)
    ]
    if not guard.possible():
        wrong.append(
            Finding(
                check="firewall",
                target=f"table bridge {rules.table}",
                fix="use a kernel that has it",
                detail="the kernel has no nftables for bridges (CONFIG_NF_TABLES_BRIDGE): containers can forge addresses",
            )
        )
    return _one("firewall", f"table inet {rules.table}", wrong, "as wanted")


def _others(networks: Networks, rules: firewall.Ruleset | None) -> list[Finding]:
    """Firewalls that are not ours."""
    if rules is None:
        return []
    wrong = [
        Finding(check="forward", target=program, detail="its FORWARD chain drops what containers send and get", fix=REPAIR)
        for program in foreign_firewalls.blocked_by(networks.paths.link_prefix)
    ]
    return _one("forward", "other firewalls", wrong, "let through what is forwarded")


def _names(networks: Networks) -> list[Finding]:
    """Each container asks for its own name, as its programs would."""
    asked: dict[socket.socket, tuple[str, str]] = {}
    wrong: list[Finding] = []
    records = [r for r in networks.endpoints.attached.values() if r.endpoints]
    try:
        for record in records:
            endpoint = record.endpoints[0]
            kind, address = (message.A, endpoint.ipv4) if endpoint.ipv4 else (message.AAAA, endpoint.ipv6)
            query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + message.encode_name(record.name) + struct.pack("!HH", kind, 1)

            def opened(query: bytes = query) -> socket.socket:
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.connect(("127.0.0.11", 53))
                sock.send(query)
                return sock

            try:
                asked[netns.enter(str(networks.endpoints.netns(record)), opened)] = record.name, address
            except OSError as error:
                wrong.append(_dumb(record.name, error.strerror or str(error)))
        until = time.monotonic() + ANSWER_S  # for all together
        for sock, (name, address) in asked.items():
            sock.settimeout(max(0.001, until - time.monotonic()))
            packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
            try:
                if packed not in sock.recv(4096):
                    wrong.append(_dumb(name, f"the answer has not its address {address}"))
            except OSError as error:
                wrong.append(_dumb(name, "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)))
    finally:
        for sock in asked:
            sock.close()
    return _one("dns", "containers", wrong, f"{len(records)} containers find their own names") if records else []


def _dumb(name: str, why: str) -> Finding:
    return Finding(check="dns", target=f"container {name}", detail=f"127.0.0.11 does not tell its name: {why}", fix=REPAIR)


async def _ports(networks: Networks, desired: Desired) -> list[Finding]:
    """Each published TCP port of this host takes a connection."""
    ports = {(p.host_ip or "127.0.0.1", p.port) for p in desired.published if p.protocol == "tcp"}
    ports |= {
        ("127.0.0.1", p.published)
        for v in networks.manifest.service_addresses
        if v.backends
        for p in v.ports
        if p.protocol == "tcp"
    }

    async def closed(host: str, port: int) -> str:
        try:
            async with asyncio.timeout(ANSWER_S):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "no answer"
        writer.close()
        return ""

    found = sorted(ports)
    answers = await asyncio.gather(*(closed(*p) for p in found))
    wrong = [
        Finding(check="port", target=f"{host}:{port}", detail=f"the published port takes no connection: {why}", fix=REPAIR)
        for (host, port), why in zip(found, answers, strict=True)
        if why
    ]
    return _one("port", "published", wrong, f"{len(ports)} ports take connections") if ports else []


def _services(networks: Networks) -> list[Finding]:
    wrong = [
        Finding(
            check="vip",
            target=f"service {v.service}",
            detail=f"{v.ipv4 or v.ipv6} leads to no task: none is running and healthy",
            fix=f"look at `pystack ps` and `pystack logs {v.service.partition('/')[2]}`",
        )
        for v in networks.manifest.service_addresses
        if (v.ipv4 or v.ipv6) and not v.backends
    ]
    served = sum(bool(v.ipv4 or v.ipv6) for v in networks.manifest.service_addresses)
    return _one("vip", "services", wrong, f"{served} services have tasks behind their addresses") if served else []


def _volumes(engine: Engine) -> list[Finding]:
    """Volumes that others serve, and that containers here use, answer."""
    used = {name: users for name in engine.volumes.all if (users := engine.containers.users_of_volume(name))}
    served = {name: users for name, users in used.items() if engine.volumes.is_served(name)}
    wrong = [
        Finding(
            check="volume",
            target=f"volume {name}",
            detail="what serves it does not answer, or is not mounted",
            fix=f"see to its server, then restart {', '.join(users)}",
        )
        for name, users in served.items()
        if not engine.volumes.is_responsive(name)
    ]
    return _one("volume", "volumes", wrong, f"{len(served)} volumes that others serve answer") if served else []
