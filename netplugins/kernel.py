"""Observes and applies kernel objects.

`Kernel.converge` makes the difference between what drivers describe and what the kernel has. What it has is dumped once
at the start and after a failure, and tracked in between: a dump for each container would make attaching quadratic.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from netplugins import netlink, netns
from netplugins.driver import Bridge, KernelObject, Veth
from netplugins.errors import NetworkError


class Kernel:
    """The links of one instance: those whose name begins with *prefix*. Blocking; call it from one worker thread."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._socket = netlink.Socket()
        self._present: dict[str, KernelObject | None] | None = None
        self._index: dict[str, int] = {}

    def observe(self) -> dict[str, KernelObject | None]:
        """Names of this instance's links → what made them, None where only the name is known."""
        if self._present is None:
            names = [name for _, name in _links() if name.startswith(self.prefix)]
            self._index = {name: self._socket.index(name) for name in names}
            self._present = dict.fromkeys(names)
        return self._present

    def forget(self) -> None:
        """Somebody else may have changed the kernel: look again before the next difference."""
        self._present = None

    def adopt(self, described: Iterable[KernelObject]) -> None:
        """Take links that are already there for what is described, after a restart: the names decide."""
        present = self.observe()
        for item in described:
            if item.name in present and present[item.name] is None:
                present[item.name] = item

    def converge(self, described: frozenset[KernelObject]) -> None:
        """Make the links of this instance equal to *described*. Idempotent; raises NetworkError and tries no further
        on the first object that the kernel refuses."""
        present = self.observe()
        wanted = {item.name: item for item in described}
        try:
            stale = [n for n, was in present.items() if n not in wanted or (was is not None and was != wanted[n])]
            if stale:
                self._socket.run(netlink.delete_links(stale), ignore=frozenset({errno.ENODEV}))
            for name in stale:
                del present[name]
            for item in wanted.values():
                if isinstance(item, Bridge) and present.get(item.name) is None:
                    self._bridge(item, existing=item.name in present)
                    present[item.name] = item
            for item in sorted(wanted.values(), key=lambda o: (getattr(o, "order", 0), o.name)):
                if isinstance(item, Veth) and present.get(item.name) is None:
                    if item.name in present:  # half made before a crash: its inside is unknown, so it is made again
                        self._socket.run(netlink.delete_links([item.name]), ignore=frozenset({errno.ENODEV}))
                    self._veth(item)
                    present[item.name] = item
        except (NetworkError, OSError):
            self.forget()
            raise

    def _bridge(self, bridge: Bridge, *, existing: bool) -> None:
        if not existing:
            self._socket.run([netlink.add_bridge(bridge.name, bridge.mtu, bridge.mac)])
        index = self._socket.index(bridge.name)
        self._index[bridge.name] = index
        _sysctl(f"net/ipv6/conf/{bridge.name}/accept_ra", "0")
        _sysctl(f"net/ipv6/conf/{bridge.name}/accept_dad", "0")
        messages = [netlink.add_address(index, cidr, bridge.name) for cidr in bridge.addresses]
        self._socket.run([*messages, netlink.link_up(index, bridge.name)])

    def _veth(self, veth: Veth) -> None:
        master = self._index.get(veth.master) or self._socket.index(veth.master)
        handle = os.open(veth.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pair = netlink.add_veth(
                veth.name, master=master, peer=veth.peer, peer_netns=handle,
                peer_mac=veth.mac, mtu=veth.mtu,
            )
            self._socket.run([pair])
        finally:
            os.close(handle)
        has_v6 = any(":" in cidr for cidr in veth.addresses)

        def configure() -> None:
            _sysctl(f"net/ipv6/conf/{veth.peer}/disable_ipv6", "0" if has_v6 else "1")
            with netlink.Socket() as sock:
                index = sock.index(veth.peer)
                messages = [netlink.add_address(index, cidr, veth.peer) for cidr in veth.addresses]
                messages.append(netlink.link_up(index, veth.peer))
                messages += [netlink.add_default_route(index, via, veth.peer) for via in veth.gateways]
                sock.run(messages)

        netns.enter(veth.netns, configure)


def prepare_namespace() -> None:
    """Run inside a new namespace: loopback up, ports below 1024 open to every user as in Docker."""
    with netlink.Socket() as sock:
        sock.run([netlink.link_up(1, "lo")])
    _sysctl("net/ipv4/ip_unprivileged_port_start", "0")
    _sysctl("net/ipv4/ping_group_range", "0 2147483647")


def allow_forwarding() -> list[str]:
    """Turn forwarding on where it is off; the sentences say what was changed on the host."""
    changed = []
    for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        path = Path("/proc/sys") / name
        if path.exists() and path.read_text().strip() == "0":
            path.write_text("1")
            changed.append(f"{name.replace('/', '.')} was 0 and is now 1: containers need the host to forward")
    return changed


def features() -> frozenset[str]:
    """Link kinds that this kernel can make, found by asking it (nothing is left behind)."""
    found: set[str] = set()

    def probe() -> None:
        with netlink.Socket() as sock:
            for kind in ("bridge", "veth", "vxlan", "macvlan", "ipvlan", "wireguard"):
                info = netlink.attribute(netlink.IFLA_LINKINFO, netlink.text(netlink.IFLA_INFO_KIND, kind))
                payload = netlink.ifinfo() + netlink.text(netlink.IFLA_IFNAME, f"probe{kind}"[:15]) + info
                try:
                    sock.run([netlink.Message(netlink.RTM_NEWLINK, netlink.F_CREATE | netlink.F_EXCL, payload, kind)])
                    found.add(kind)
                except NetworkError as error:
                    # ENOTSUP is "no such kind"; anything else is the kind's own wish for more parameters
                    if not any(code in str(error) for code in ("ENOTSUP", "EOPNOTSUPP")):
                        found.add(kind)

    def body() -> None:
        netns._check(netns._libc.unshare(netns.CLONE_NEWNET), "unshare the network namespace")
        probe()

    netns.in_thread(body)
    return frozenset(found)


def _links() -> list[tuple[int, str]]:
    import socket

    return socket.if_nameindex()


def _sysctl(name: str, value: str) -> None:
    """Write a network sysctl of the calling thread's namespace; an absent one (no IPv6) is no error."""
    try:
        Path("/proc/sys", name).write_text(value)
    except FileNotFoundError:
        pass
