"""Observes and applies kernel objects.

`Kernel.converge` makes the difference between what drivers describe and what the kernel has. What it has is dumped once
at the start and after a failure, and tracked in between: a dump for each container would make attaching quadratic.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from netplugins import address_conflict, netlink, netns, wireguard
from netplugins.driver import Bridge, FdbEntry, KernelObject, ParentedLink, Veth, Vlan, Vxlan, WireguardDevice
from netplugins.errors import NetworkError


class Kernel:
    """The links of one instance: those whose name begins with *prefix*. Blocking; call it from one worker thread."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._socket = netlink.Socket()
        self._present: dict[str, KernelObject | None] | None = None
        self._index: dict[str, int] = {}
        self._far: frozenset[FdbEntry] | None = None
        """None: what the kernel has is not known, so it is asked."""
        self._children: dict[str, tuple[ParentedLink, int]] = {}
        """Links that were made in namespaces of containers, with the index of their parent: no dump here shows them."""

    def close(self) -> None:
        self._socket.close()

    def observe(self) -> dict[str, KernelObject | None]:
        """Names of this instance's links → what made them, None where only the name is known."""
        if self._present is None:
            self._refresh()
            assert self._present is not None
        return self._present

    def _refresh(self) -> None:
        """What is there, when it is not known how far the last change came. What was made before it stays what it is: to make a
        container's link anew breaks its connections off."""
        self._index = {name: index for index, name in _links() if name.startswith(self.prefix)}
        known = self._present or {}
        self._present = {name: known.get(name) for name in (*self._index, *self._children)}
        self._far = None

    def invalidate(self, names: Iterable[str]) -> None:
        """The objects of these names, and all far endpoints, are not what they should be: the next `converge` sets bridges
        anew and makes the others again."""
        present = self.observe()
        for name in names:
            if name in self._children:
                self._remove_child(self._children[name][0])
                present.pop(name, None)
            elif name in present:
                present[name] = None
        self._far = None

    def detect_drift(self) -> bool:
        """Look whether the kernel still has what was made; what it lacks is forgotten, so that `converge` makes it anew.
        Whether something is lacking."""
        present = self.observe()
        whole = True
        there = {name: index for index, name in _links()}
        for name in [n for n in present if n not in there]:
            if name not in self._children:
                whole = False
                del present[name]
                self._index.pop(name, None)
        self._index = {name: index for name, index in there.items() if name in self._index}
        for name, (child, parent) in list(self._children.items()):
            if self._index_of(child.parent) != parent:  # it went with its parent
                whole = False
                present.pop(name, None)
                del self._children[name]
        addressed = [i for i in present.values() if isinstance(i, Bridge | WireguardDevice)]
        if addressed:
            versions = {6 if ":" in cidr else 4 for item in addressed for cidr in _cidrs(item)}
            addresses, routes = self._socket.addresses(versions), self._socket.routes(versions)
            for item in addressed:
                if not self._addressed(item, addresses, routes):
                    whole = False
                    present[item.name] = None
        if self._far:
            confirmed = self._confirmed(self._far)
            whole &= confirmed == self._far
            self._far = confirmed
        return not whole

    def _addressed(
        self, item: Bridge | WireguardDevice, addresses: set[tuple[int, bytes]], routes: set[tuple[int, bytes, int]]
    ) -> bool:
        index = self._link(item.name)
        for cidr in _cidrs(item):
            one = ipaddress.ip_interface(cidr)
            route = (index, one.network.network_address.packed, one.network.prefixlen)
            if (index, one.ip.packed) not in addresses or route not in routes:
                return False
        return True

    def adopt(self, described: Iterable[KernelObject]) -> None:
        """Take links that are already there for what is described, after a restart: the names decide. Bridges and tunnels are
        not taken: they are set once more, in place."""
        present = self.observe()
        for item in described:
            if item.name in present and present[item.name] is None and not isinstance(item, Bridge | WireguardDevice):
                present[item.name] = item

    def converge(self, described: frozenset[KernelObject], far: frozenset[FdbEntry] = frozenset()) -> dict[str, str]:
        """Make the links of this instance equal to *described*, and what lies behind its VXLAN devices equal to *far*.

        Idempotent. Returns what could not be made for single endpoints: namespace → why. Raises NetworkError, and tries
        no further, where the kernel refuses what many share."""
        present = self.observe()
        problems: dict[str, str] = {}
        wanted = {item.name: item for item in described}
        try:
            # most objects are the very ones of the last time, which needs no look at their parts
            stale = [
                n
                for n, was in present.items()
                if (now := wanted.get(n)) is None
                or (was is not None and was is not now and was != now and not _can_update_in_place(was, now))
            ]
            children = [n for n in stale if n in self._children]
            for name in children:
                self._remove_child(self._children[name][0])
            if own := [n for n in stale if n not in children]:
                self._socket.run(netlink.delete_links(own), ignore=frozenset({errno.ENODEV}))
            for name in stale:
                del present[name]
                self._index.pop(name, None)
            if self._far and stale:  # entries go with their device
                self._far -= {f for f in self._far if f.vxlan in stale or f.bridge in stale}
            todo = [item for item in wanted.values() if (was := present.get(item.name)) is not item and was != item]
            for item in todo:
                if isinstance(item, Bridge):
                    self._bridge(item, present.get(item.name), existing=item.name in present)
                    present[item.name] = item
            for item in todo:
                if isinstance(item, WireguardDevice):
                    self._tunnel(item, existing=item.name in present)
                    present[item.name] = item
            for item in todo:
                if isinstance(item, Vxlan | Veth) and present.get(item.name) is not None:
                    self._set_mtu(item)
                    present[item.name] = item
            todo = [item for item in todo if present.get(item.name) is not item]
            for item in todo:
                if isinstance(item, Vxlan):
                    if item.name in present:
                        self._socket.run(netlink.delete_links([item.name]), ignore=frozenset({errno.ENODEV}))
                    self._vxlan(item)
                    present[item.name] = item
                    if self._far is not None:  # its entries went with the old device
                        self._far -= {f for f in self._far if f.vxlan == item.name}
            self._sync_fdb(far)
            for item in todo:
                if isinstance(item, Vlan):
                    if item.name in present:
                        self._socket.run(netlink.delete_links([item.name]), ignore=frozenset({errno.ENODEV}))
                    self._vlan(item)
                    present[item.name] = item
            born: list[ParentedLink] = []
            ends = [item for item in todo if isinstance(item, Veth | ParentedLink)]
            for item in sorted(ends, key=lambda o: (o.order, o.name)):
                try:
                    if isinstance(item, ParentedLink):
                        if not self._has_child(item):
                            self._create_child_link(item)
                            born.append(item)
                            continue
                        self._children[item.name] = item, self._link(item.parent)
                    else:
                        if item.name in present:  # half made before a crash: its inside is unknown, so it is made again
                            self._socket.run(netlink.delete_links([item.name]), ignore=frozenset({errno.ENODEV}))
                        self._veth(item)
                    present[item.name] = item
                except (NetworkError, OSError) as error:
                    problems.setdefault(item.netns, str(error))
                    if isinstance(item, Veth):
                        present[item.name] = None  # as far as it came
            problems |= self._configure_child_links(born, present)
        except (NetworkError, OSError):
            self._refresh()
            raise
        return problems

    def _bridge(self, bridge: Bridge, was: KernelObject | None, *, existing: bool) -> None:
        """Make a bridge, or change it in place: containers hang on it."""
        if not existing:
            self._socket.run([netlink.add_bridge(bridge.name, bridge.mtu, bridge.mac)])
        index = self._socket.index(bridge.name)
        self._index[bridge.name] = index
        _sysctl(f"net/ipv6/conf/{bridge.name}/accept_ra", "0")
        _sysctl(f"net/ipv6/conf/{bridge.name}/accept_dad", "0")
        if bridge.filtered and not Path("/proc/sys/net/bridge").exists():
            subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)
        messages = []
        if existing or bridge.filtered:
            messages.append(netlink.set_bridge(index, bridge.mtu, bridge.mac, bridge.name, filtered=bridge.filtered))
        old = was.addresses if isinstance(was, Bridge) else ()
        if old[:1] != bridge.addresses[:1]:  # the kernel speaks from the oldest: all are given anew, in order
            self._socket.run(
                [netlink.delete_address(index, cidr, bridge.name) for cidr in (*old, *bridge.addresses) if existing],
                ignore=frozenset({errno.EADDRNOTAVAIL}),
            )
        messages += [netlink.add_address(index, cidr, bridge.name) for cidr in bridge.addresses]
        self._socket.run([*messages, netlink.link_up(index, bridge.name)])
        if existing:
            connected = {ipaddress.ip_interface(c).network: c for c in reversed(bridge.addresses)}
            self._socket.run([netlink.add_connected_route(index, cidr, bridge.name) for cidr in connected.values()])
        gone = set(was.addresses) - set(bridge.addresses) if isinstance(was, Bridge) else set()
        self._socket.run(
            [netlink.delete_address(index, cidr, bridge.name) for cidr in sorted(gone)],
            ignore=frozenset({errno.EADDRNOTAVAIL}),
        )

    def _vxlan(self, vxlan: Vxlan) -> None:
        master = self._link(vxlan.master)
        self._socket.run(
            [netlink.add_vxlan(vxlan.name, vni=vxlan.vni, port=vxlan.port, local=vxlan.local, mtu=vxlan.mtu, master=master)]
        )
        self._index[vxlan.name] = self._socket.index(vxlan.name)
        self._socket.run([netlink.bridge_port_no_learning(self._index[vxlan.name], vxlan.name)])

    def _tunnel(self, tunnel: WireguardDevice, *, existing: bool) -> None:
        """Make a WireGuard device, or change it in place: sessions with other nodes go on."""
        if not existing:
            if "wireguard" in _kinds():
                self._socket.run([netlink.add_wireguard(tunnel.name)])
            else:
                wireguard.start_program(tunnel.name)
        index = self._socket.index(tunnel.name)
        self._index[tunnel.name] = index
        wireguard.configure(tunnel)
        _sysctl(f"net/ipv6/conf/{tunnel.name}/disable_ipv6", "0")  # a host may have it off for new links
        cidr = tunnel_cidr(tunnel)
        self._socket.run(
            [
                netlink.set_mtu(index, tunnel.mtu, tunnel.name),
                netlink.link_up(index, tunnel.name),
                netlink.add_address(index, cidr, tunnel.name),
                netlink.add_connected_route(index, cidr, tunnel.name),
            ]
        )

    def _set_mtu(self, item: Vxlan | Veth) -> None:
        """Change it while it is in use: connections go on."""
        self._socket.run([netlink.set_mtu(self._link(item.name), item.mtu, item.name)])
        if isinstance(item, Veth):

            def inside() -> None:
                with netlink.Socket() as sock:
                    sock.run([netlink.set_mtu(sock.index(item.peer), item.mtu, item.peer)])

            netns.enter(item.netns, inside)

    def _vlan(self, vlan: Vlan) -> None:
        parent = self._parent(vlan.parent)
        self._socket.run([netlink.add_vlan(vlan.name, parent=parent, vid=vlan.vid)])
        self._index[vlan.name] = self._socket.index(vlan.name)

    def _parent(self, name: str) -> int:
        """The index of a link of the host that others are made on; it is asked for each time, for it is not ours."""
        index = self._socket.index(name)
        if not index:
            raise NetworkError(f"the parent link {name} is not there")
        return index

    def _index_of(self, name: str) -> int:
        return self._index.get(name) or self._socket.index(name)

    # --- links on a parent of the host ---------------------------------------------------------------------------

    def _has_child(self, child: ParentedLink) -> bool:
        """Whether *child* is there with its addresses, as after a restart of ours."""

        def look() -> bool:
            with netlink.Socket() as sock:
                index = sock.index(child.interface)
                has = {address for at, address in sock.addresses() if at == index}
                return bool(index) and {netlink.packed(a.split("/")[0]) for a in child.addresses} <= has

        return netns.enter(child.netns, look)

    def _create_child_link(self, child: ParentedLink) -> None:
        """Make the link and bring it up, with no address yet.

        Its name in the container is given there: older kernels (6.1) refuse a name that the host has too."""
        self._remove_child(child)
        parent = self._parent(child.parent)
        handle = os.open(child.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._socket.run(
                [
                    netlink.add_child(
                        child.kind,
                        parent=parent,
                        netns=handle,
                        name=child.name,
                        mode=child.mode,
                        flag=child.flag,
                        mac=child.mac,
                        mtu=child.mtu,
                        what=child.parent,
                    )
                ]
            )
        finally:
            os.close(handle)
        self._children[child.name] = child, parent

        def start() -> None:
            _sysctl(f"net/ipv6/conf/{child.name}/disable_ipv6", "0" if any(":" in a for a in child.addresses) else "1")
            with netlink.Socket() as sock:
                index = sock.index(child.name)
                sock.run([netlink.rename(index, child.interface), netlink.link_up(index, child.interface)])

        netns.enter(child.netns, start)

    def _configure_child_links(self, children: list[ParentedLink], present: dict[str, KernelObject | None]) -> dict[str, str]:
        """Give those of *children* their addresses whose addresses nobody on the LAN has. Returns namespace → why not."""
        claims = {
            address_conflict.AddressProbe(path=c.netns, interface=c.interface, address=a.split("/")[0]): c
            for c in children
            for a in c.addresses
        }
        probed = [claim for claim, child in claims.items() if child.probed]
        problems = {
            claims[claim].netns: f"address {claim.address} is held by {owner} on the LAN of {claims[claim].parent}: choose "
            "another, or keep it off the network with aux_addresses or ip_range"
            for claim, owner in (address_conflict.conflicts(probed) if probed else {}).items()
        }
        for child in children:
            if child.netns in problems:
                self._remove_child(child)
                continue
            try:
                netns.enter(child.netns, functools.partial(_address_child, child))
                present[child.name] = child
            except (NetworkError, OSError) as error:
                problems[child.netns] = str(error)
        address_conflict.announce(claim for claim in probed if claims[claim].netns not in problems)
        return problems

    def _remove_child(self, child: ParentedLink) -> None:
        """Take *child* out of its namespace now, so that its parent and addresses are free at once. Not there is fine."""
        self._children.pop(child.name, None)

        def remove() -> None:
            with netlink.Socket() as sock:
                for name in (child.interface, child.name):  # half made before a crash it has the other name
                    sock.run(netlink.delete_links([name]), ignore=frozenset({errno.ENODEV}))

        if netns.is_namespace(Path(child.netns)):
            netns.enter(child.netns, remove)

    def _link(self, name: str) -> int:
        if name not in self._index:
            self._index[name] = self._socket.index(name)
        return self._index[name]

    def _sync_fdb(self, far: frozenset[FdbEntry]) -> None:
        """Write what is new among the far endpoints, then take away what is stale; one batch each."""
        before = self._far if self._far is not None else self._confirmed(far)
        if self._far is None:
            self._delete_stale_entries(far)
        kept_macs = {(f.vxlan, f.mac) for f in far}
        kept_addresses = {(f.bridge, a) for f in far for a in f.addresses}
        messages: list[netlink.Message] = []
        for item in before - far:
            if item.vxlan in self._index and (item.vxlan, item.mac) not in kept_macs:
                messages += netlink.fdb_entry(self._index[item.vxlan], item.mac, item.underlay, add=False)
            if item.bridge in self._index:
                messages += [
                    netlink.neighbour(self._index[item.bridge], a, item.mac, add=False)
                    for a in item.addresses
                    if (item.bridge, a) not in kept_addresses
                ]
        moved = {(f.vxlan, f.mac): f.underlay for f in before - far}
        for item in far - before:
            index = self._link(item.vxlan)
            if old := moved.get((item.vxlan, item.mac)):
                if old != item.underlay:  # `replace` would keep both destinations
                    messages += netlink.fdb_entry(index, item.mac, old, add=False)
            messages += netlink.fdb_entry(index, item.mac, item.underlay, add=True)
            bridge = self._link(item.bridge)
            messages += [netlink.neighbour(bridge, a, item.mac, add=True) for a in item.addresses]
        self._far = None
        self._socket.run(messages, ignore=frozenset({errno.ENOENT, errno.ENODEV}))
        self._far = far

    def _entries(self) -> tuple[set[tuple[int, str, bytes]], set[tuple[int, str]], set[tuple[int, str, bytes]]]:
        """The kernel's (VXLAN link, MAC, underlay), (VXLAN link, MAC) on the bridge, (bridge, MAC, address)."""
        device, bridged = set(), set()
        for index, state, flags, mac, address in self._socket.neighbours(netlink.AF_BRIDGE):
            if flags & netlink.NTF_SELF and address:
                device.add((index, mac, address))
            elif not flags & netlink.NTF_SELF and state & netlink.NUD_NOARP:
                bridged.add((index, mac))
        known = {
            (index, mac, address)
            for family in (socket.AF_INET, socket.AF_INET6)
            for index, state, _, mac, address in self._socket.neighbours(family)
            if state & netlink.NUD_PERMANENT
        }
        return device, bridged, known

    def _confirmed(self, far: frozenset[FdbEntry]) -> frozenset[FdbEntry]:
        """Those of *far* that the kernel has whole."""
        if not far:
            return far
        device, bridged, known = self._entries()

        def whole(item: FdbEntry) -> bool:
            vxlan, bridge = self._link(item.vxlan), self._link(item.bridge)
            sent = (vxlan, item.mac, netlink.packed(item.underlay)) in device and (vxlan, item.mac) in bridged
            return sent and all((bridge, item.mac, netlink.packed(a)) in known for a in item.addresses)

        return frozenset(f for f in far if whole(f))

    def _delete_stale_entries(self, far: frozenset[FdbEntry]) -> None:
        """After a restart: take away entries of our VXLAN devices and bridges that nobody asks for."""
        vxlans = {self._link(n): n for n in self.observe() if n.startswith(f"{self.prefix}x")}
        bridges = {self._link(n): n for n in self.observe() if n.startswith(f"{self.prefix}b")}
        if not vxlans:
            return
        wanted = {(f.vxlan, f.mac, netlink.packed(f.underlay)) for f in far}
        addresses = {(f.bridge, f.mac, netlink.packed(a)) for f in far for a in f.addresses}
        device, _, known = self._entries()
        messages: list[netlink.Message] = []
        for index, mac, underlay in device:
            if index in vxlans and (vxlans[index], mac, underlay) not in wanted:
                messages += netlink.fdb_entry(index, mac, str(ipaddress.ip_address(underlay)), add=False)
        for index, mac, address in known:
            if index in bridges and (bridges[index], mac, address) not in addresses:
                messages.append(netlink.neighbour(index, str(ipaddress.ip_address(address)), mac, add=False))
        self._socket.run(messages, ignore=frozenset({errno.ENOENT, errno.ENODEV}))

    def _veth(self, veth: Veth) -> None:
        master = self._link(veth.master)
        handle = os.open(veth.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pair = netlink.add_veth(
                veth.name,
                master=master,
                peer=veth.peer,
                peer_netns=handle,
                peer_mac=veth.mac,
                mtu=veth.mtu,
            )
            self._socket.run([pair])
        finally:
            os.close(handle)
        has_v6 = any(":" in cidr for cidr in veth.addresses)

        def configure() -> None:
            _sysctl(f"net/ipv6/conf/{veth.peer}/disable_ipv6", "0" if has_v6 else "1")
            if has_v6:  # its link-local address follows from its MAC, as `guard` expects
                _sysctl(f"net/ipv6/conf/{veth.peer}/addr_gen_mode", "0")
            with netlink.Socket() as sock:
                index = sock.index(veth.peer)
                messages = [netlink.add_address(index, cidr, veth.peer) for cidr in veth.addresses]
                messages.append(netlink.link_up(index, veth.peer))
                messages += [netlink.add_default_route(index, via, veth.peer) for via in veth.gateways]
                messages += [netlink.add_route(index, cidr, via, veth.peer) for cidr, via in veth.routes]
                sock.run(messages)

        netns.enter(veth.netns, configure)


def _can_update_in_place(was: KernelObject, now: KernelObject) -> bool:
    """Whether *was* can become *now* without being made anew."""
    if isinstance(was, Veth | Vxlan) and isinstance(now, Veth | Vxlan):
        return type(was) is type(now) and msgspec.structs.replace(was, mtu=now.mtu) == now
    return isinstance(was, Bridge | WireguardDevice)


def _address_child(child: ParentedLink) -> None:
    """Run inside the namespace of *child*."""
    with netlink.Socket() as sock:
        index = sock.index(child.interface)
        messages = [netlink.add_address(index, cidr, child.interface) for cidr in child.addresses]
        messages += [netlink.add_default_route(index, via, child.interface) for via in child.gateways]
        if child.onlink:
            versions = {ipaddress.ip_interface(a).version for a in child.addresses}
            messages += [netlink.add_link_route(index, version, child.interface) for version in sorted(versions)]
        sock.run(messages)


def _cidrs(item: Bridge | WireguardDevice) -> tuple[str, ...]:
    return item.addresses if isinstance(item, Bridge) else (tunnel_cidr(item),)


def tunnel_cidr(tunnel: WireguardDevice) -> str:
    return f"{tunnel.address}/{wireguard.PREFIX.prefixlen}"


def links() -> frozenset[str]:
    """The names of all links of this network namespace."""
    return frozenset(name for _, name in _links())


def prepare_namespace() -> None:
    """Run inside a new namespace: loopback up, ports below 1024 open to every user as in Docker."""
    with netlink.Socket() as sock:
        sock.run([netlink.link_up(1, "lo")])
    _sysctl("net/ipv4/ip_unprivileged_port_start", "0")
    _sysctl("net/ipv4/ping_group_range", f"0 {_last_group()}")


def allow_forwarding(links: Iterable[str] = ()) -> list[str]:
    """Turn forwarding on where it is off, for the host and *links*; the sentences say what was changed on the host."""
    changed = []
    per_link = (f"net/ipv4/conf/{link}/forwarding" for link in links)
    for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", *per_link):
        path = Path("/proc/sys") / name
        if path.exists() and path.read_text().strip() == "0":
            path.write_text("1")
            changed.append(f"{name.replace('/', '.')} was 0 and is now 1: containers need the host to forward")
    return changed


def forwarding_off(links: Iterable[str]) -> list[str]:
    """Sysctls that keep the host, or one of *links*, from forwarding."""
    names = ["net/ipv4/ip_forward", *(f"net/ipv4/conf/{link}/forwarding" for link in links)]
    return [n for n in names if (path := Path("/proc/sys") / n).exists() and path.read_text().strip() == "0"]


def features() -> frozenset[str]:
    """Link kinds that can be made here: by the kernel, or, of WireGuard, by a program."""
    return _kinds() | ({"wireguard"} if wireguard.has_program() else set())


@functools.cache
def _kinds() -> frozenset[str]:
    """Link kinds that this kernel can make, found by asking it (nothing is left behind)."""
    found: set[str] = set()

    def probe() -> None:
        with netlink.Socket() as sock:
            for kind in ("bridge", "veth", "vxlan", "vlan", "macvlan", "ipvlan", "wireguard"):
                info = netlink.attribute(netlink.IFLA_LINKINFO, netlink.text(netlink.IFLA_INFO_KIND, kind))
                payload = netlink.ifinfo() + netlink.text(netlink.IFLA_IFNAME, f"probe{kind}"[:15]) + info
                try:
                    sock.run([netlink.Message(netlink.RTM_NEWLINK, netlink.F_CREATE | netlink.F_EXCL, payload, kind)])
                    found.add(kind)
                except NetworkError as error:
                    # ENOTSUP is "no such kind"; anything else is the kind's own network for more parameters
                    if not any(code in str(error) for code in ("ENOTSUP", "EOPNOTSUPP")):
                        found.add(kind)

    netns.isolated(probe)
    return frozenset(found)


def _links() -> list[tuple[int, str]]:
    return socket.if_nameindex()


@functools.cache
def _last_group() -> int:
    """The highest group ID that there is in this process's user namespace. Source: user_namespaces(7), gid_map."""
    rows = [line.split() for line in Path("/proc/self/gid_map").read_text().splitlines()]
    return min(max(int(inside) + int(count) for inside, _, count in rows) - 1, 0x7FFF_FFFF)


def _sysctl(name: str, value: str) -> None:
    """Write a network sysctl of the calling thread's namespace; an absent one (no IPv6) is no error."""
    try:
        Path("/proc/sys", name).write_text(value)
    except FileNotFoundError:
        pass
