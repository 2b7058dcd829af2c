"""Macvlan and ipvlan links: created on a link of the host, in a container's namespace, where no dump of the host shows them."""

from __future__ import annotations

import functools
import ipaddress
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec

from netplugins import address_conflict
from netplugins.address_conflict import AddressProbe
from netplugins.driver import ParentedLink
from netplugins.errors import NetworkError
from netplugins.linux import netlink, netns, rtnetlink, sysctl
from netplugins.objects import limits
from netplugins.objects.kind import ContainerLink, Difference, ObjectKind, Stage, View
from netplugins.objects.links import MISSING, Links


class ParentedLinkKind(ObjectKind[ParentedLink]):
    """A macvlan or ipvlan link; its limits change in place, every other change recreates it. It gets its addresses after a
    probe of the LAN."""

    stage = Stage.ENDPOINT
    finished_together = True

    def checks(self, item: ParentedLink) -> Collection[str]:
        """Layers of `container_link`, and of the doctor's probe of the LAN."""
        wanted = {"container-link": True, "address-clash": item.probed, "bandwidth": bool(item.rates)}
        return [check for check, is_wanted in wanted.items() if is_wanted]

    def can_update(self, was: ParentedLink, now: ParentedLink) -> bool:
        """Whether no more than its limits differ."""
        return msgspec.structs.replace(was, rates=now.rates) == now

    def update(self, item: ParentedLink, was: ParentedLink | None, links: Links) -> None:
        """Set its limits; connections go on."""
        netns.enter(item.netns, functools.partial(_limit, item, was))
        links.parented[item.name] = item, links.find(item.parent)

    def namespace(self, item: ParentedLink) -> str:
        """The container's namespace."""
        return item.netns

    def order(self, item: ParentedLink) -> int:
        """The number of the interface."""
        return item.order

    def adopt(self, item: ParentedLink, links: Links) -> bool:
        """Whether the link exists with its addresses, as after a restart of the agent."""
        there = netns.enter(item.netns, functools.partial(_has_addresses, item))
        if there:
            self.update(item, None, links)
        return there

    def create(self, item: ParentedLink, links: Links) -> None:
        """Create the link and bring it up, without addresses.

        It gets its interface's name in the container: older kernels (6.1) refuse a name that the host has too."""
        delete(item, links)
        parent = links.parent(item.parent)
        info = rtnetlink.macvlan_info(item.mode) if item.kind == "macvlan" else rtnetlink.ipvlan_info(item.mode, item.flag)
        what = f"{item.kind} link ({item.mode}) on {item.parent}"
        handle = os.open(item.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            links.socket.run(
                [
                    rtnetlink.add_parented_link(
                        item.name, info, parent=parent, netns=handle, mac=item.mac, mtu=item.mtu, what=what
                    )
                ]
            )
        finally:
            os.close(handle)
        links.parented[item.name] = item, parent
        netns.enter(item.netns, functools.partial(_bring_up, item))

    def finish(self, items: Sequence[ParentedLink], links: Links) -> dict[str, str]:
        """Give the links their addresses, except in containers where another host of the LAN has one of them."""
        probes = probes_of(items)
        held = address_conflict.conflicts(list(probes)) if probes else {}
        problems = {
            probe.path: f"address {probe.address} is held by {owner} on the LAN of {probes[probe].parent}: choose "
            "another, or keep it off the network with aux_addresses or ip_range"
            for probe, owner in held.items()
        }
        for item in items:
            if item.netns in problems:
                delete(item, links)
                continue
            try:
                netns.enter(item.netns, functools.partial(_add_addresses, item))
                if item.rates:
                    netns.enter(item.netns, functools.partial(_limit, item, None))
            except (NetworkError, OSError) as error:
                problems[item.netns] = str(error)
        address_conflict.announce(probe for probe in probes if probe.path not in problems)
        return problems

    def container_link(self, item: ParentedLink) -> ContainerLink:
        """The link itself."""
        ifb = ifb_name(item)
        return ContainerLink(item.netns, item.interface, item.mtu, item.addresses, item.gateways, item.rates, ifb)

    def observe(self, item: ParentedLink, host: View) -> Iterable[Difference]:
        """Nothing of it is on the host."""
        return ()


def delete(item: ParentedLink, links: Links) -> None:
    """Delete *item* now, where it exists, so that its parent and addresses are free at once."""
    links.parented.pop(item.name, None)

    def inside() -> None:
        with netlink.Socket() as sock:
            for name in (item.interface, item.name, ifb_name(item)):  # a crash may have left it with the other name
                sock.run(rtnetlink.delete_links([name]), ignore=MISSING)

    if netns.is_namespace(Path(item.netns)):
        netns.enter(item.netns, inside)


def probes_of(items: Iterable[ParentedLink]) -> dict[AddressProbe, ParentedLink]:
    """The probes of the LAN before *items* take their addresses: probe → link."""
    return {
        AddressProbe(path=item.netns, interface=item.interface, address=cidr.split("/")[0]): item
        for item in items
        if item.probed
        for cidr in item.addresses
    }


def _has_addresses(item: ParentedLink) -> bool:
    with netlink.Socket() as sock:
        index = sock.index(item.interface)
        has = {address for at, address in sock.addresses() if at == index}
        return bool(index) and {netlink.packed(a.split("/")[0]) for a in item.addresses} <= has


def ifb_name(item: ParentedLink) -> str:
    """The link in the container's namespace on which waits what it receives."""
    return f"ifb{item.order}"


def _limit(item: ParentedLink, was: ParentedLink | None) -> None:
    """Runs inside the container's namespace."""
    with netlink.Socket() as sock:
        ifb = limits.create_ifb(sock, ifb_name(item)) if item.rates.ingress else 0
        redirected = was is not None and bool(was.rates.ingress)
        link = next(one for one in sock.links() if one.name == item.interface)
        limits.limit(sock, link.index, ifb, item.rates, link.mtu, item.interface, redirected=redirected)
        if not ifb:
            sock.run(rtnetlink.delete_links([ifb_name(item)]), ignore=MISSING)


def _bring_up(item: ParentedLink) -> None:
    sysctl.write(f"net/ipv6/conf/{item.name}/disable_ipv6", "0" if any(":" in a for a in item.addresses) else "1")
    with netlink.Socket() as sock:
        index = sock.index(item.name)
        sock.run([rtnetlink.rename(index, item.interface), rtnetlink.link_up(index, item.interface)])


def _add_addresses(item: ParentedLink) -> None:
    with netlink.Socket() as sock:
        index = sock.index(item.interface)
        messages = [rtnetlink.add_address(index, cidr, item.interface) for cidr in item.addresses]
        messages += [rtnetlink.add_default_route(index, via, item.interface) for via in item.gateways]
        if item.onlink:
            versions = {ipaddress.ip_interface(a).version for a in item.addresses}
            messages += [rtnetlink.add_link_route(index, version, item.interface) for version in sorted(versions)]
        sock.run(messages)
