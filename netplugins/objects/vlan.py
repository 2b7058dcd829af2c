"""802.1Q links on links of the host."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from netplugins.driver import Vlan
from netplugins.linux import rtnetlink
from netplugins.objects.kind import Difference, ObjectKind, Stage, View, observe_link
from netplugins.objects.links import Links


class VlanKind(ObjectKind[Vlan]):
    """A VLAN link; every change recreates it."""

    stage = Stage.VLAN

    def checks(self, item: Vlan) -> Collection[str]:
        """Layers of `observe`."""
        return ("link",)

    def create(self, item: Vlan, links: Links) -> None:
        """Create the link, up, on its parent."""
        links.socket.run([rtnetlink.add_vlan(item.name, parent=links.parent(item.parent), vid=item.vid)])
        links.created(item.name)

    def observe(self, item: Vlan, host: View) -> Iterable[Difference]:
        """Whether the link is up; it has its parent's MTU."""
        return observe_link(item.name, 0, host)
