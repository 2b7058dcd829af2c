"""Limits of a container's bandwidth, on the host's end of its veth, where the container cannot take them away."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from netplugins.driver import Rates, Shaper
from netplugins.objects import limits
from netplugins.objects.kind import Difference, ObjectKind, Stage, View, observe_link, observe_rate
from netplugins.objects.links import Links


class ShaperKind(ObjectKind[Shaper]):
    """Limits of a veth, made on the host. They change in place: what waits goes on waiting, no connection notices."""

    stage = Stage.SHAPER
    updated_unseen = True

    def checks(self, item: Shaper) -> Collection[str]:
        """The layer of `observe`."""
        return ("bandwidth",)

    def can_update(self, was: Shaper, now: Shaper) -> bool:
        """Whether it limits the same link."""
        return was.link == now.link

    def namespace(self, item: Shaper) -> str:
        """The container's namespace."""
        return item.netns

    def order(self, item: Shaper) -> int:
        """The number of the interface."""
        return item.order

    def built_on(self, item: Shaper) -> str:
        """The veth."""
        return item.link

    def create(self, item: Shaper, links: Links) -> None:
        """Create the ifb link and set all limits."""
        self.update(item, None, links)

    def update(self, item: Shaper, was: Shaper | None, links: Links) -> None:
        """Set the limits that differ; all, where nothing is known."""
        index = links.index(item.link)
        limits.create_ifb(links.socket, item.name)
        ifb = links.created(item.name)
        # what the host sends to the link is what the container receives
        wanted = Rates(egress=item.rates.ingress, ingress=item.rates.egress, burst=item.rates.burst)
        redirected = was is not None and bool(was.rates.egress)
        limits.limit(links.socket, index, ifb, wanted, item.mtu, item.link, redirected=redirected)

    def observe(self, item: Shaper, host: View) -> Iterator[Difference]:
        """Whether the veth is limited in both directions as described."""
        link, ifb = host.links.get(item.link), host.links.get(item.name)
        yield from observe_link(item.name, 0, host, check="bandwidth")
        if link is None:
            return  # the veth says so itself
        yield from observe_rate(link.index, item.rates.ingress, host, "received")
        yield from observe_rate(ifb.index if ifb else 0, item.rates.egress, host, "sent")
        if bool(item.rates.egress) != (link.index in host.redirected):
            yield Difference("bandwidth", f"what is sent {'does not pass' if item.rates.egress else 'passes'} {item.name}")


def release(names: Iterable[str], links: Links) -> None:
    """Those of *names* that are shapers are going to be deleted: let their veths' packets pass as before, or they are lost."""
    for name in names:
        if name.startswith(f"{links.prefix}i") and (
            index := links.find(veth := f"{links.prefix}v{name[len(links.prefix) + 1 :]}")
        ):
            limits.clear(links.socket, index, veth)
