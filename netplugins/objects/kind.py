"""The interface of a kind of kernel object, and what the kinds share."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Generic, TypeVar

import msgspec

from netplugins.driver import UNLIMITED, Rates
from netplugins.linux import netlink, traffic
from netplugins.objects.links import Links

T = TypeVar("T")
Address = tuple[int, bytes]
"""(link index, packed address)."""
Route = tuple[int, bytes, int]
"""(link index, packed destination, prefix length)."""


class Stage(IntEnum):
    """The order in which objects are created: each needs those of the stages before it."""

    BRIDGE = 0
    TUNNEL = 1
    VXLAN = 2
    VLAN = 3
    ENDPOINT = 4
    SHAPER = 5


class Difference(msgspec.Struct, frozen=True):
    """What the kernel has otherwise than described: *check* is the layer, *detail* a sentence."""

    check: str
    detail: str


class ContainerLink(msgspec.Struct, frozen=True):
    """A link as its container sees it. *mtu* in bytes, 0 for any; *addresses* are CIDRs, *gateways* those of default routes."""

    netns: str
    interface: str
    mtu: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    rates: Rates = UNLIMITED
    ifb: str = ""
    """Limits that are kept inside, where the host has no end of the link, and the link that keeps what is received."""

    def observe(self, view: View) -> Iterator[Difference]:
        """How the link differs in *view*, the view of its namespace."""
        link = view.links.get(self.interface)
        if link is None:
            yield Difference("container-link", "the interface does not exist")
            return
        if not link.up:
            yield Difference("container-link", "the interface is down")
        if self.mtu and link.mtu != self.mtu:
            yield Difference("mtu", f"the MTU is {link.mtu} and should be {self.mtu}")
        for cidr in self.addresses:
            if (link.index, ipaddress.ip_interface(cidr).ip.packed) not in view.addresses:
                yield Difference("container-address", f"the address {cidr} is missing")
        for gateway in self.gateways:
            if (link.index, bytes(len(netlink.packed(gateway))), 0) not in view.routes:
                yield Difference("container-route", f"the default route through {gateway} is missing")
        if self.ifb:
            ifb = view.links.get(self.ifb)
            yield from observe_rate(link.index, self.rates.egress, view, "sent")
            yield from observe_rate(ifb.index if ifb else 0, self.rates.ingress, view, "received")
            if bool(self.rates.ingress) != (link.index in view.redirected):
                yield Difference("bandwidth", "what is received is not where its limit is")


class View(msgspec.Struct, frozen=True):
    """The links (by name), addresses, routes and limits of one network namespace."""

    links: dict[str, netlink.Link]
    addresses: Collection[Address]
    routes: Collection[Route]
    rates: Mapping[int, int] = {}
    """Link index → bits a second that it may send."""
    redirected: Collection[int] = ()
    """Links that have what they receive sent by another link first."""

    @classmethod
    def dump(cls) -> View:
        """The view of the calling thread's namespace."""
        with netlink.Socket() as sock:
            return cls({link.name: link for link in sock.links()}, sock.addresses(), sock.routes(), *traffic.dump(sock))


class ObjectKind(Generic[T]):
    """How objects of one kind are created, updated and observed; without state, one subclass and one instance a kind.

    What fails raises NetworkError or OSError."""

    stage: Stage
    updated_unseen = False
    """An existing object of unknown state is updated in place. Else it is adopted after a restart, or deleted and created."""

    finished_together = False
    """Newly created objects are complete only after `finish`."""

    def checks(self, item: T) -> Collection[str]:
        """The layers, as a Difference names them, that `observe` or the doctor looks at for *item*."""
        raise NotImplementedError

    def can_update(self, was: T, now: T) -> bool:
        """Whether *was* can become *now* without being deleted."""
        return False

    def adopt(self, item: T, links: Links) -> bool:
        """Take over *item* where it exists and no dump of the host shows it. Returns whether it was there."""
        return False

    def create(self, item: T, links: Links) -> None:
        """Create *item*, which does not exist."""
        raise NotImplementedError

    def update(self, item: T, was: T | None, links: Links) -> None:
        """Make the existing *was* equal to *item*; None: nothing is known of it but its name."""
        raise NotImplementedError

    def finish(self, items: Sequence[T], links: Links) -> dict[str, str]:
        """Do for newly created *items*, all at once, what is left to do. Returns namespace → why it failed."""
        raise NotImplementedError

    def namespace(self, item: T) -> str:
        """The namespace whose container alone needs *item*, "" if several do: a failure is that container's only."""
        return ""

    def order(self, item: T) -> int:
        """The place of *item* among the interfaces of its container."""
        return 0

    def built_on(self, item: T) -> str:
        """The name of the link that *item* changes: it is made again whenever that is. "" for none."""
        return ""

    def addresses(self, item: T) -> tuple[str, ...]:
        """The CIDRs that the host holds on *item*."""
        return ()

    def container_link(self, item: T) -> ContainerLink | None:
        """How its container sees *item*; None if no container does."""
        return None

    def observe(self, item: T, host: View) -> Iterable[Difference]:
        """How *item* differs on the host."""
        raise NotImplementedError


def missing_addresses(
    index: int, cidrs: Iterable[str], addresses: Collection[Address], routes: Collection[Route]
) -> Iterator[Difference]:
    """Those of *cidrs* that link *index* lacks, and the connected routes that are missing."""
    for cidr in cidrs:
        one = ipaddress.ip_interface(cidr)
        if (index, one.ip.packed) not in addresses:
            yield Difference("address", f"the address {one} is missing")
        elif (index, one.network.network_address.packed, one.network.prefixlen) not in routes:
            yield Difference("route", f"the route to {one.network} is missing")


def observe_link(name: str, mtu: int, host: View, *, check: str = "link") -> Iterator[Difference]:
    """How the link *name* of the host differs: whether it exists (layer *check*), is up, and has *mtu* bytes, 0 for any."""
    link = host.links.get(name)
    if link is None:
        yield Difference(check, "the link does not exist")
        return
    if not link.up:
        yield Difference("link", "the link is down")
    if mtu and link.mtu != mtu:
        yield Difference("mtu", f"the MTU is {link.mtu} and should be {mtu}")


def observe_port(name: str, master: str, host: View) -> Iterator[Difference]:
    """Whether the existing link *name* is a port of the bridge *master*."""
    link, bridge = host.links.get(name), host.links.get(master)
    if link is not None and (bridge is None or link.master != bridge.index):
        yield Difference("bridge-port", f"the link is not a port of {master}")


def observe_rate(index: int, rate: int, view: View, what: str) -> Iterator[Difference]:
    """Whether the link *index* (0: there is none) may send *rate* bits a second, at most; 0 sets no limit."""
    has = view.rates.get(index, 0)
    if has // 8 != rate // 8:
        shown = f"{has} bit/s" if has else "unlimited"
        yield Difference("bandwidth", f"what is {what} is {shown} and should be {f'{rate} bit/s' if rate else 'unlimited'}")
