"""What the kernel has, held against what drivers describe: each difference as a finding that names its layer.

Looks and changes nothing; `Kernel.doubt` and `Kernel.converge` put right what is found.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import socket
from collections.abc import Collection, Iterable, Mapping

import msgspec

from netplugins import address_conflict, netlink, netns, wireguard
from netplugins.driver import Bridge, FdbEntry, KernelObject, ParentedLink, Veth, Vlan, Vxlan, WireguardDevice
from netplugins.errors import NetworkError
from netplugins.kernel import tunnel_cidr

REPAIR = "pystack doctor --repair puts it back"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """*check* is the layer, *target* what was looked at, *detail* what is there. *fix* says what to do where it is not
    *ok*; *item* is the name of the described object that is not as described, "" where none is."""

    check: str
    target: str
    ok: bool = False
    detail: str
    fix: str = ""
    item: str = ""


class _View:
    """One namespace, dumped once."""

    def __init__(self) -> None:
        with netlink.Socket() as sock:
            self.links = {link.name: link for link in sock.links()}
            self.addresses = sock.addresses()
            self.routes = sock.routes()


def examine(objects: Iterable[KernelObject], far: Collection[FdbEntry], labels: Mapping[str, str]) -> list[Finding]:
    """Everything that differs; one finding that is ok for each layer that has none. *labels* say of which container or
    network a namespace or link is. Call it in a worker thread: it blocks."""
    host = _View()
    objects = list(objects)
    found: list[Finding] = []
    inside: dict[str, list[Veth | ParentedLink]] = {}
    for item in objects:
        label = labels.get(item.name, "") or labels.get(getattr(item, "netns", ""), item.name)
        if isinstance(item, Veth | ParentedLink):
            inside.setdefault(item.netns, []).append(item)
        if not isinstance(item, ParentedLink):
            found += _host_link(item, host, label)
    for path, items in inside.items():
        found += _interior(path, items, labels.get(path, path))
    found += _foreign(objects, host)
    found += _reach(far, host, labels)
    found += _clashes([i for i in objects if isinstance(i, ParentedLink)], labels)
    return found + _well(found, objects, far)


def _host_link(item: Bridge | Veth | Vxlan | Vlan | WireguardDevice, host: _View, label: str) -> Iterable[Finding]:
    where = f"{item.name} ({label})"
    link = host.links.get(item.name)
    if link is None:
        check = "vxlan" if isinstance(item, Vxlan) else "link"
        yield Finding(check=check, target=where, detail="the link is not there", fix=REPAIR, item=item.name)
        return
    if not link.up:
        yield Finding(check="link", target=where, detail="the link is down", fix=REPAIR, item=item.name)
    if not isinstance(item, Vlan) and link.mtu != item.mtu:
        detail = f"the MTU is {link.mtu} and should be {item.mtu}"
        yield Finding(check="mtu", target=where, detail=detail, fix=REPAIR, item=item.name)
    if isinstance(item, Veth | Vxlan):
        master = host.links.get(item.master)
        if master is None or link.master != master.index:
            yield Finding(
                check="bridge-port", target=where, detail=f"the link is no port of {item.master}", fix=REPAIR, item=item.name
            )
    if isinstance(item, Vxlan):
        has = (link.vni, link.port, link.local)
        if has != (item.vni, item.port, netlink.packed(item.local)):
            local = str(ipaddress.ip_address(link.local)) if link.local else "no address"
            detail = (
                f"it has VNI {link.vni}, port {link.port} and speaks from {local}: VNI {item.vni}, port {item.port} and "
                f"{item.local} are wanted"
            )
            yield Finding(check="vxlan", target=where, detail=detail, fix=REPAIR, item=item.name)
    if isinstance(item, WireguardDevice):
        yield from _peers(item, where)
    if isinstance(item, Bridge | WireguardDevice):
        for cidr in item.addresses if isinstance(item, Bridge) else (tunnel_cidr(item),):
            one = ipaddress.ip_interface(cidr)
            if (link.index, one.ip.packed) not in host.addresses:
                yield Finding(check="address", target=where, detail=f"{one} is not there", fix=REPAIR, item=item.name)
            elif (link.index, one.network.network_address.packed, one.network.prefixlen) not in host.routes:
                detail = f"the route to {one.network} is not there"
                yield Finding(check="route", target=where, detail=detail, fix=REPAIR, item=item.name)


def _peers(tunnel: WireguardDevice, where: str) -> Iterable[Finding]:
    """Whether the tunnel knows just those whom it should."""
    wrong = functools.partial(Finding, check="tunnel", target=where, fix=REPAIR, item=tunnel.name)
    try:
        has = wireguard.peers(tunnel.name)
    except NetworkError as error:
        yield wrong(detail=str(error))
        return
    wanted = {p.key: p for p in tunnel.peers}
    for key in sorted(wanted.keys() | has.keys()):
        if key not in has:
            yield wrong(detail=f"it does not know {wanted[key].endpoint}")
        elif key not in wanted:
            yield wrong(detail=f"it lets {has[key].endpoint or 'a stranger'} in, whom it should not know")
        elif has[key] != wanted[key]:
            yield wrong(detail=f"it looks for {wanted[key].address} at {has[key].endpoint} and not at {wanted[key].endpoint}")


def _interior(path: str, items: list[Veth | ParentedLink], label: str) -> Iterable[Finding]:
    """What a container sees."""
    try:
        view = netns.enter(path, _View)
    except OSError as error:
        yield Finding(
            check="namespace",
            target=label,
            detail=f"it cannot be entered: {error.strerror}",
            fix="restart the container",
            item=items[0].name,
        )
        return
    for item in items:
        name = item.peer if isinstance(item, Veth) else item.interface
        where, link = f"{name} in {label}", view.links.get(name)
        wrong = functools.partial(Finding, target=where, fix=REPAIR, item=item.name)
        if link is None:
            yield wrong(check="container-link", detail="the interface is not there")
            continue
        if not link.up:
            yield wrong(check="container-link", detail="the interface is down")
        if item.mtu and link.mtu != item.mtu:
            detail = f"the MTU is {link.mtu} and should be {item.mtu}"
            yield wrong(check="mtu", detail=detail)
        for cidr in item.addresses:
            if (link.index, ipaddress.ip_interface(cidr).ip.packed) not in view.addresses:
                yield wrong(check="container-address", detail=f"{cidr} is not there")
        if item.gateways and (link.index, b"", 0) not in view.routes:
            yield wrong(check="container-route", detail="there is no default route")


def _foreign(objects: Iterable[KernelObject], host: _View) -> Iterable[Finding]:
    """VXLAN devices of others that take what ours need."""
    own = {(o.vni, o.port): o for o in objects if isinstance(o, Vxlan)}
    for link in host.links.values():
        ours = own.get((link.vni, link.port)) if link.kind == "vxlan" else None
        if ours and link.name != ours.name:
            yield Finding(
                check="vni",
                target=ours.name,
                detail=f"VNI {link.vni} on port {link.port} is taken by link {link.name}, which is not ours",
                fix=f"delete {link.name}, or give it another VNI",
            )


def _reach(far: Collection[FdbEntry], host: _View, labels: Mapping[str, str]) -> Iterable[Finding]:
    """Endpoints on other nodes: where frames to them go, and their hardware addresses."""
    if not far:
        return
    with netlink.Socket() as sock:
        forwarding: dict[tuple[int, str], set[bytes]] = {}
        bridged: set[tuple[int, str]] = set()
        for index, _, flags, mac, underlay in sock.neighbours(netlink.AF_BRIDGE):
            if flags & netlink.NTF_SELF and underlay:
                forwarding.setdefault((index, mac), set()).add(underlay)
            elif not flags & netlink.NTF_SELF:
                bridged.add((index, mac))
        known = {
            (index, address): mac
            for family in (socket.AF_INET, socket.AF_INET6)
            for index, state, _, mac, address in sock.neighbours(family)
            if state & netlink.NUD_PERMANENT
        }
    for item in far:
        vxlan, bridge = host.links.get(item.vxlan), host.links.get(item.bridge)
        if vxlan is None or bridge is None:
            continue  # the missing link is a finding of its own
        label = f"{', '.join(item.addresses)} on {labels.get(item.bridge, item.bridge)}"
        to = forwarding.get((vxlan.index, item.mac), set())
        if netlink.packed(item.underlay) not in to or (vxlan.index, item.mac) not in bridged:
            lies = ", ".join(str(ipaddress.ip_address(a)) for a in to) or "nowhere"
            yield Finding(
                check="fdb", target=label, detail=f"frames to {item.mac} go to {lies} and not to {item.underlay}", fix=REPAIR
            )
        for address in item.addresses:
            says = known.get((bridge.index, netlink.packed(address)), "")
            if says != item.mac:
                detail = f"the neighbour entry says {says or 'nothing'} and not {item.mac}"
                yield Finding(check="neighbour", target=label, detail=detail, fix=REPAIR)


def _clashes(children: list[ParentedLink], labels: Mapping[str, str]) -> Iterable[Finding]:
    """Addresses on a LAN that somebody else has too."""
    claims = {
        address_conflict.AddressProbe(path=c.netns, interface=c.interface, address=a.split("/")[0]): c
        for c in children
        if c.probed
        for a in c.addresses
    }
    try:
        held = address_conflict.conflicts(list(claims)) if claims else {}
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENETDOWN, errno.ENOENT):
            raise
        return  # an interface that is not there is a finding of its own
    for claim, mac in held.items():
        yield Finding(
            check="address-clash",
            target=f"{claim.interface} in {labels.get(claim.path, claim.path)}",
            detail=f"{claim.address} is held by {mac} on the LAN too",
            fix="take it from that machine, or keep it off the network with aux_addresses",
        )


def _well(found: list[Finding], objects: list[KernelObject], far: Collection[FdbEntry]) -> list[Finding]:
    """For each layer that was looked at and has no finding, that it has none."""
    counts = {
        "link": sum(not isinstance(o, ParentedLink) for o in objects),
        "vxlan": sum(isinstance(o, Vxlan) for o in objects),
        "tunnel": sum(isinstance(o, WireguardDevice) for o in objects),
        "address": sum(isinstance(o, Bridge) for o in objects),
        "container-link": sum(isinstance(o, Veth | ParentedLink) for o in objects),
        "fdb": len(far),
        "neighbour": sum(len(f.addresses) for f in far),
        "address-clash": sum(isinstance(o, ParentedLink) and o.probed for o in objects),
    }
    wrong = {f.check for f in found}
    return [
        Finding(check=check, target="kernel", ok=True, detail=f"{count} as described")
        for check, count in counts.items()
        if count and check not in wrong
    ]
