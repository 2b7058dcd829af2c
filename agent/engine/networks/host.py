"""This host as networks need it: supported kinds of links, its own links, addresses, and the MTU towards other nodes."""

from __future__ import annotations

import ipaddress

import msgspec

from netplugins.driver import HostCapabilities
from netplugins.kernel import features, links
from netplugins.linux import netlink

DEFAULT_MTU = 1500
MAX_MTU = 1 << 16


class NetworkHost:
    """This host as drivers may see it (*capabilities*), as of the last look. *prefix* begins the names of our own links."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.capabilities = HostCapabilities(features=features())
        self.underlay = ""
        """The address at which other nodes reach this one, "" if there are none."""
        self._path_mtu = 0

    def set_underlay(self, address: str, path_mtu: int) -> None:
        """Other nodes reach this one at *address*; *path_mtu* in bytes is the MTU of the paths to them, 0 if unknown."""
        self.underlay, self._path_mtu = address, path_mtu
        self.refresh_mtu()

    def refresh_mtu(self) -> bool:
        """Determine the MTU towards other nodes, the smaller one of the own link's and the paths'. Returns whether it
        changed."""
        mtu = min(mtu_of(self.underlay) or DEFAULT_MTU, self._path_mtu or MAX_MTU)
        if mtu == self.capabilities.mtu:
            return False
        self.capabilities = msgspec.structs.replace(self.capabilities, mtu=mtu)
        return True

    def refresh_links(self) -> None:
        """Determine the links on which others can be created."""
        self.capabilities = msgspec.structs.replace(self.capabilities, links=self.links())

    def links(self) -> frozenset[str]:
        """The names of the links that are not ours, without the loopback device."""
        return frozenset(name for name in links() if not name.startswith(self.prefix) and name != "lo")


def addresses_of_host(prefix: str) -> set[str]:
    """All addresses of this host's links, but for those that begin with *prefix*, loopback and link-local ones."""
    with netlink.Socket() as sock:
        ours = {link.index for link in sock.links() if link.name.startswith(prefix)}
        held = {ipaddress.ip_address(packed) for index, packed in sock.addresses() if index not in ours}
    return {str(a) for a in held if not a.is_loopback and not a.is_link_local}


def mtu_of(address: str) -> int:
    """The MTU of the link that holds *address*; 0 if none does."""
    if address:
        with netlink.Socket() as sock:
            index = next((i for i, held in sock.addresses() if held == netlink.packed(address)), 0)
            if link := next((link for link in sock.links() if link.index == index), None):
                return link.mtu
    return 0
