"""Veth pairs between a bridge and a container."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

import msgspec

from netplugins.driver import Veth
from netplugins.linux import netlink, netns, rtnetlink, sysctl
from netplugins.objects.kind import ContainerLink, Difference, ObjectKind, Stage, View, observe_link, observe_port
from netplugins.objects.links import Links


class VethKind(ObjectKind[Veth]):
    """A veth pair: one end is a port of a bridge, the other a container's interface. Of an existing one the MTU can change."""

    stage = Stage.ENDPOINT

    def checks(self, item: Veth) -> Collection[str]:
        """Layers of `observe` and of `container_link`."""
        return ("link", "container-link")

    def can_update(self, was: Veth, now: Veth) -> bool:
        """Whether no more than the MTU differs."""
        return msgspec.structs.replace(was, mtu=now.mtu) == now

    def namespace(self, item: Veth) -> str:
        """The container's namespace."""
        return item.netns

    def order(self, item: Veth) -> int:
        """The number of the interface."""
        return item.order

    def create(self, item: Veth, links: Links) -> None:
        """Create the pair, the container's end with its addresses and routes."""
        master = links.index(item.master)
        handle = os.open(item.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pair = rtnetlink.add_veth(
                item.name, master=master, peer=item.peer, peer_netns=handle, peer_mac=item.mac, mtu=item.mtu
            )
            links.socket.run([pair])
        finally:
            os.close(handle)
        netns.enter(item.netns, lambda: _configure_peer(item))

    def update(self, item: Veth, was: Veth | None, links: Links) -> None:
        """Set the MTU of both ends; connections go on."""
        links.socket.run([rtnetlink.set_mtu(links.index(item.name), item.mtu, item.name)])

        def inside() -> None:
            with netlink.Socket() as sock:
                sock.run([rtnetlink.set_mtu(sock.index(item.peer), item.mtu, item.peer)])

        netns.enter(item.netns, inside)

    def container_link(self, item: Veth) -> ContainerLink:
        """The container's end."""
        return ContainerLink(item.netns, item.peer, item.mtu, item.addresses, item.gateways)

    def observe(self, item: Veth, host: View) -> Iterator[Difference]:
        """Whether the host's end is up as a port of its bridge, with its MTU."""
        yield from observe_link(item.name, item.mtu, host)
        yield from observe_port(item.name, item.master, host)


def _configure_peer(item: Veth) -> None:
    """Runs inside the container's namespace."""
    has_v6 = any(":" in cidr for cidr in item.addresses)
    sysctl.write(f"net/ipv6/conf/{item.peer}/disable_ipv6", "0" if has_v6 else "1")
    if has_v6:  # its link-local address follows from its MAC, as `guard` expects
        sysctl.write(f"net/ipv6/conf/{item.peer}/addr_gen_mode", "0")
    with netlink.Socket() as sock:
        index = sock.index(item.peer)
        messages = [rtnetlink.add_address(index, cidr, item.peer) for cidr in item.addresses]
        messages.append(rtnetlink.link_up(index, item.peer))
        messages += [rtnetlink.add_default_route(index, via, item.peer) for via in item.gateways]
        messages += [rtnetlink.add_route(index, cidr, via, item.peer) for cidr, via in item.routes]
        sock.run(messages)
