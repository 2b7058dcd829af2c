"""WireGuard devices. One is never deleted for a change: the sessions with other nodes go on."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from netplugins import wireguard
from netplugins.driver import WireguardDevice
from netplugins.errors import NetworkError
from netplugins.linux import rtnetlink, sysctl
from netplugins.linux.link_kinds import link_kinds
from netplugins.objects.kind import Difference, ObjectKind, Stage, View, missing_addresses, observe_link
from netplugins.objects.links import Links


class WireguardDeviceKind(ObjectKind[WireguardDevice]):
    """The node's WireGuard device: the kernel's, or one of wireguard-go."""

    stage = Stage.TUNNEL
    updated_unseen = True

    def checks(self, item: WireguardDevice) -> Collection[str]:
        """Layers of `observe`."""
        return ("link", "tunnel")

    def can_update(self, was: WireguardDevice, now: WireguardDevice) -> bool:
        """Always."""
        return True

    def addresses(self, item: WireguardDevice) -> tuple[str, ...]:
        """The address of this node in the tunnel."""
        return (f"{item.address}/{wireguard.PREFIX.prefixlen}",)

    def create(self, item: WireguardDevice, links: Links) -> None:
        """Create the device, and set it up."""
        if "wireguard" in link_kinds():
            links.socket.run([rtnetlink.add_link(item.name, "wireguard")])
        else:
            wireguard.start_program(item.name)
        self.update(item, None, links)

    def update(self, item: WireguardDevice, was: WireguardDevice | None, links: Links) -> None:
        """Set key, port, peers, MTU, address and connected route."""
        index = links.created(item.name)
        wireguard.configure(item)
        sysctl.write(f"net/ipv6/conf/{item.name}/disable_ipv6", "0")  # a host may have it off for new links
        (cidr,) = self.addresses(item)
        links.socket.run(
            [
                rtnetlink.set_mtu(index, item.mtu, item.name),
                rtnetlink.link_up(index, item.name),
                rtnetlink.add_address(index, cidr, item.name),
                rtnetlink.add_connected_route(index, cidr, item.name),
            ]
        )

    def observe(self, item: WireguardDevice, host: View) -> Iterator[Difference]:
        """Whether the device is up with its MTU, peers, address and connected route."""
        yield from observe_link(item.name, item.mtu, host)
        if link := host.links.get(item.name):
            yield from _observe_peers(item)
            yield from missing_addresses(link.index, self.addresses(item), host.addresses, host.routes)


def _observe_peers(tunnel: WireguardDevice) -> Iterator[Difference]:
    """Whether the device has exactly the peers that it should have."""
    try:
        has = wireguard.peers(tunnel.name)
    except NetworkError as error:
        yield Difference("tunnel", str(error))
        return
    wanted = {p.key: p for p in tunnel.peers}
    for key in sorted(wanted.keys() | has.keys()):
        if key not in has:
            yield Difference("tunnel", f"the peer at {wanted[key].endpoint} is missing")
        elif key not in wanted:
            yield Difference("tunnel", f"it has a peer at {has[key].endpoint or 'an unknown address'} that it should not have")
        elif has[key] != wanted[key]:
            where = f"{has[key].endpoint} and should be at {wanted[key].endpoint}"
            yield Difference("tunnel", f"the peer with address {wanted[key].address} is at {where}")
