"""FDB and neighbour entries of remote endpoints, which stand for what a bridge would learn."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Collection, Iterable, Iterator

import msgspec

from netplugins.driver import FdbEntry
from netplugins.linux import netlink, rtnetlink, uapi
from netplugins.objects.kind import Difference, View
from netplugins.objects.links import Links

_GONE = frozenset({errno.ENOENT, errno.ENODEV})


class KernelEntries(msgspec.Struct, frozen=True):
    """The kernel's entries: *underlays* of VXLAN devices, (index, MAC) → packed addresses; *bridged*, (index, MAC) of static
    entries of bridges' ports; *neighbours*, (index, packed address) → MAC of permanent ones."""

    underlays: dict[tuple[int, str], set[bytes]]
    bridged: set[tuple[int, str]]
    neighbours: dict[tuple[int, bytes], str]

    @classmethod
    def dump(cls, sock: netlink.Socket) -> KernelEntries:
        """The entries of the namespace of *sock*."""
        underlays: dict[tuple[int, str], set[bytes]] = {}
        bridged: set[tuple[int, str]] = set()
        for index, state, flags, mac, address in sock.neighbours(uapi.AF_BRIDGE):
            if flags & uapi.NTF_SELF and address:
                underlays.setdefault((index, mac), set()).add(address)
            elif not flags & uapi.NTF_SELF and state & uapi.NUD_NOARP:
                bridged.add((index, mac))
        neighbours = {
            (index, address): mac
            for family in (socket.AF_INET, socket.AF_INET6)
            for index, state, _, mac, address in sock.neighbours(family)
            if state & uapi.NUD_PERMANENT
        }
        return cls(underlays, bridged, neighbours)

    def has(self, entry: FdbEntry, vxlan: int, bridge: int) -> bool:
        """Whether *entry* is there whole, with the indices of its VXLAN device and bridge."""
        underlay = netlink.packed(entry.underlay)
        if (vxlan, entry.mac) not in self.bridged or underlay not in self.underlays.get((vxlan, entry.mac), ()):
            return False
        return all(self.neighbours.get((bridge, netlink.packed(a))) == entry.mac for a in entry.addresses)


class FdbTable:
    """The entries of one instance as they were last written. What fails raises NetworkError."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._written: frozenset[FdbEntry] | None = None
        """None: the kernel's entries are not known."""

    def invalidate(self) -> None:
        """The next `sync` reads the kernel's entries."""
        self._written = None

    def forget(self, names: Collection[str]) -> None:
        """The kernel deleted the entries of the VXLAN devices and bridges *names* together with those."""
        if self._written and names:
            self._written -= {e for e in self._written if e.vxlan in names or e.bridge in names}

    def detect_drift(self) -> bool:
        """Read the kernel's entries. Returns whether some that were written are missing; `sync` writes those again."""
        if not self._written:
            return False
        before, self._written = self._written, self._confirmed(self._written)
        return self._written != before

    def sync(self, wanted: frozenset[FdbEntry]) -> None:
        """Make the kernel's entries equal to *wanted*: stale ones are deleted, new ones written, in one batch."""
        before = self._written
        if before is None:
            before = self._confirmed(wanted)
            self._delete_unknown(wanted)
        self._written = None
        self._links.socket.run([*self._deletions(before, wanted), *self._additions(before, wanted)], ignore=_GONE)
        self._written = wanted

    def _deletions(self, before: frozenset[FdbEntry], wanted: frozenset[FdbEntry]) -> Iterator[netlink.Message]:
        stale = before - wanted
        if not stale:
            return
        kept_macs = {(e.vxlan, e.mac) for e in wanted}
        kept_addresses = {(e.bridge, a) for e in wanted for a in e.addresses}
        for entry in stale:
            if entry.vxlan in self._links and (entry.vxlan, entry.mac) not in kept_macs:
                yield from rtnetlink.fdb_entry(self._links.index(entry.vxlan), entry.mac, entry.underlay, add=False)
            if entry.bridge in self._links:
                bridge = self._links.index(entry.bridge)
                for address in entry.addresses:
                    if (entry.bridge, address) not in kept_addresses:
                        yield rtnetlink.neighbour(bridge, address, entry.mac, add=False)

    def _additions(self, before: frozenset[FdbEntry], wanted: frozenset[FdbEntry]) -> Iterator[netlink.Message]:
        moved = {(e.vxlan, e.mac): e.underlay for e in before - wanted}
        for entry in wanted - before:
            vxlan, bridge = self._links.index(entry.vxlan), self._links.index(entry.bridge)
            old = moved.get((entry.vxlan, entry.mac), entry.underlay)
            if old != entry.underlay:  # `replace` would keep both destinations
                yield from rtnetlink.fdb_entry(vxlan, entry.mac, old, add=False)
            yield from rtnetlink.fdb_entry(vxlan, entry.mac, entry.underlay, add=True)
            for address in entry.addresses:
                yield rtnetlink.neighbour(bridge, address, entry.mac, add=True)

    def _confirmed(self, entries: frozenset[FdbEntry]) -> frozenset[FdbEntry]:
        """Those of *entries* that the kernel has whole."""
        if not entries:
            return entries
        kernel, index = KernelEntries.dump(self._links.socket), self._links.index
        return frozenset(e for e in entries if kernel.has(e, index(e.vxlan), index(e.bridge)))

    def _delete_unknown(self, wanted: frozenset[FdbEntry]) -> None:
        """After a restart: delete the entries of our VXLAN devices and bridges that are not in *wanted*."""
        vxlans, bridges = self._links.indices("x"), self._links.indices("b")
        if not vxlans:
            return
        targets = {(e.vxlan, e.mac, netlink.packed(e.underlay)) for e in wanted}
        addresses = {(e.bridge, e.mac, netlink.packed(a)) for e in wanted for a in e.addresses}
        kernel = KernelEntries.dump(self._links.socket)
        messages: list[netlink.Message] = []
        for (index, mac), underlays in kernel.underlays.items():
            for underlay in underlays:
                if index in vxlans and (vxlans[index], mac, underlay) not in targets:
                    messages += rtnetlink.fdb_entry(index, mac, str(ipaddress.ip_address(underlay)), add=False)
        for (index, address), mac in kernel.neighbours.items():
            if index in bridges and (bridges[index], mac, address) not in addresses:
                messages.append(rtnetlink.neighbour(index, str(ipaddress.ip_address(address)), mac, add=False))
        self._links.socket.run(messages, ignore=_GONE)


def observe(entries: Iterable[FdbEntry], kernel: KernelEntries, host: View) -> Iterator[tuple[FdbEntry, Difference]]:
    """How *entries* differ in *kernel*. Those whose link is missing are left out: the link is a difference of its own."""
    for entry in entries:
        vxlan, bridge = host.links.get(entry.vxlan), host.links.get(entry.bridge)
        if vxlan is None or bridge is None:
            continue
        underlays = kernel.underlays.get((vxlan.index, entry.mac), set())
        if netlink.packed(entry.underlay) not in underlays or (vxlan.index, entry.mac) not in kernel.bridged:
            now = ", ".join(str(ipaddress.ip_address(a)) for a in underlays) or "nowhere"
            yield entry, Difference("fdb", f"frames to {entry.mac} go to {now} and not to {entry.underlay}")
        for address in entry.addresses:
            mac = kernel.neighbours.get((bridge.index, netlink.packed(address)), "")
            if mac != entry.mac:
                detail = f"the neighbour entry has {mac or 'no address'} and should have {entry.mac}"
                yield entry, Difference("neighbour", detail)
