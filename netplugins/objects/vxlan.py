"""VXLAN devices."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator

import msgspec

from netplugins.driver import Vxlan
from netplugins.linux import netlink, rtnetlink
from netplugins.objects.kind import Difference, ObjectKind, Stage, View, observe_link, observe_port
from netplugins.objects.links import Links


class VxlanKind(ObjectKind[Vxlan]):
    """A VXLAN device, a port of its network's bridge. Of one that exists only the MTU can change."""

    stage = Stage.VXLAN

    def checks(self, item: Vxlan) -> Collection[str]:
        """Layers of `observe`."""
        return ("link", "vxlan")

    def can_update(self, was: Vxlan, now: Vxlan) -> bool:
        """Whether no more than the MTU differs."""
        return msgspec.structs.replace(was, mtu=now.mtu) == now

    def create(self, item: Vxlan, links: Links) -> None:
        """Create the device as a port that learns nothing, and bring it up."""
        master = links.index(item.master)
        links.socket.run(
            [rtnetlink.add_vxlan(item.name, vni=item.vni, port=item.port, local=item.local, mtu=item.mtu, master=master)]
        )
        links.socket.run([rtnetlink.bridge_port_no_learning(links.created(item.name), item.name)])

    def update(self, item: Vxlan, was: Vxlan | None, links: Links) -> None:
        """Set the MTU; connections go on."""
        links.socket.run([rtnetlink.set_mtu(links.index(item.name), item.mtu, item.name)])

    def observe(self, item: Vxlan, host: View) -> Iterator[Difference]:
        """Whether the device is up as a port of its bridge, with its MTU, VNI, port and source address."""
        yield from observe_link(item.name, item.mtu, host, check="vxlan")
        yield from observe_port(item.name, item.master, host)
        link = host.links.get(item.name)
        if link and (link.vni, link.port, link.local) != (item.vni, item.port, netlink.packed(item.local)):
            local = str(ipaddress.ip_address(link.local)) if link.local else "no address"
            yield Difference(
                "vxlan",
                f"it has VNI {link.vni}, port {link.port} and source address {local}, and should have VNI {item.vni}, "
                f"port {item.port} and {item.local}",
            )


def conflicting_devices(own: Iterable[Vxlan], host: View) -> Iterator[tuple[Vxlan, netlink.Link]]:
    """Each of *own* whose VNI and port another device of the host has, with that device: the kernel allows one."""
    wanted = {(o.vni, o.port): o for o in own}
    for link in host.links.values():
        ours = wanted.get((link.vni, link.port)) if link.kind == "vxlan" else None
        if ours and link.name != ours.name:
            yield ours, link
