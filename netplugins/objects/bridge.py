"""Bridges. One is never deleted for a change: containers are attached to it."""

from __future__ import annotations

import errno
import ipaddress
import subprocess
from collections.abc import Collection, Iterator

from netplugins.driver import Bridge
from netplugins.linux import rtnetlink, sysctl
from netplugins.linux.netlink import Message
from netplugins.objects.kind import Difference, ObjectKind, Stage, View, missing_addresses, observe_link
from netplugins.objects.links import Links

_ABSENT = frozenset({errno.EADDRNOTAVAIL})


class BridgeKind(ObjectKind[Bridge]):
    """A bridge with the addresses that the host holds on it."""

    stage = Stage.BRIDGE
    updated_unseen = True

    def checks(self, item: Bridge) -> Collection[str]:
        """Layers of `observe`."""
        return ("link", "address")

    def can_update(self, was: Bridge, now: Bridge) -> bool:
        """Always."""
        return True

    def addresses(self, item: Bridge) -> tuple[str, ...]:
        """The gateway's addresses, and the node's own."""
        return item.addresses

    def create(self, item: Bridge, links: Links) -> None:
        """Create the bridge with its addresses, and bring it up."""
        links.socket.run([rtnetlink.add_bridge(item.name, item.mtu, item.mac)])
        index = links.created(item.name)
        _prepare(item)
        messages = [_settings(item, index)] if item.filtered else []
        messages += [rtnetlink.add_address(index, cidr, item.name) for cidr in item.addresses]
        links.socket.run([*messages, rtnetlink.link_up(index, item.name)])

    def update(self, item: Bridge, was: Bridge | None, links: Links) -> None:
        """Set MTU, hardware address, addresses and connected routes of the bridge."""
        index = links.created(item.name)
        _prepare(item)
        old = was.addresses if was else ()
        if old[:1] != item.addresses[:1]:  # the kernel sends from the oldest address: all are added again, in order
            links.socket.run(
                [rtnetlink.delete_address(index, cidr, item.name) for cidr in (*old, *item.addresses)], ignore=_ABSENT
            )
        messages = [_settings(item, index), *(rtnetlink.add_address(index, cidr, item.name) for cidr in item.addresses)]
        links.socket.run([*messages, rtnetlink.link_up(index, item.name)])
        connected = {ipaddress.ip_interface(c).network: c for c in reversed(item.addresses)}
        links.socket.run([rtnetlink.add_connected_route(index, cidr, item.name) for cidr in connected.values()])
        gone = sorted(set(old) - set(item.addresses))
        links.socket.run([rtnetlink.delete_address(index, cidr, item.name) for cidr in gone], ignore=_ABSENT)

    def observe(self, item: Bridge, host: View) -> Iterator[Difference]:
        """Whether the bridge is up with its MTU, addresses and connected routes."""
        yield from observe_link(item.name, item.mtu, host)
        if link := host.links.get(item.name):
            yield from missing_addresses(link.index, item.addresses, host.addresses, host.routes)


def _settings(item: Bridge, index: int) -> Message:
    return rtnetlink.set_bridge(index, item.mtu, item.mac, item.name, filtered=item.filtered)


def _prepare(item: Bridge) -> None:
    sysctl.write(f"net/ipv6/conf/{item.name}/accept_ra", "0")
    sysctl.write(f"net/ipv6/conf/{item.name}/accept_dad", "0")
    if item.filtered and not (sysctl.ROOT / "net/bridge").exists():
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)
