"""The table of kinds."""

from __future__ import annotations

from typing import Any

from netplugins.driver import Bridge, KernelObject, ParentedLink, Shaper, Veth, Vlan, Vxlan, WireguardDevice
from netplugins.objects.bridge import BridgeKind
from netplugins.objects.kind import ObjectKind
from netplugins.objects.parented_link import ParentedLinkKind
from netplugins.objects.shaper import ShaperKind
from netplugins.objects.veth import VethKind
from netplugins.objects.vlan import VlanKind
from netplugins.objects.vxlan import VxlanKind
from netplugins.objects.wireguard_device import WireguardDeviceKind

KINDS: dict[type[KernelObject], ObjectKind[Any]] = {
    Bridge: BridgeKind(),
    WireguardDevice: WireguardDeviceKind(),
    Vxlan: VxlanKind(),
    Vlan: VlanKind(),
    Veth: VethKind(),
    ParentedLink: ParentedLinkKind(),
    Shaper: ShaperKind(),
}


def kind_of(item: KernelObject) -> ObjectKind[Any]:
    """The kind of *item*."""
    return KINDS[type(item)]


def can_update(was: KernelObject, now: KernelObject) -> bool:
    """Whether *was* can become *now* in place."""
    return type(was) is type(now) and kind_of(was).can_update(was, now)
