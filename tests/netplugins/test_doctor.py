"""What the doctor finds in a real kernel, and that `Kernel` repairs it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from netplugins import conformance, kernel
from netplugins.doctor import Finding, examine
from netplugins.driver import FdbEntry, KernelObject, NetworkState, RemoteEndpoint
from netplugins.linux import netns
from netplugins.macvlan import MacvlanDriver
from netplugins.overlay import OverlayDriver

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def state(testbed: conformance.Testbed) -> NetworkState:
    """An overlay with two endpoints here and one elsewhere, and another one on a LAN: a VLAN where the kernel has those."""
    testbed.network = msgspec.structs.replace(
        testbed.network,
        vni=7,
        underlay="10.9.0.1",
        remotes=(RemoteEndpoint(underlay="10.9.0.2", ipv4="10.77.0.9", ipv6="fd77::9"),),
    )
    overlay = testbed.desired_state(0, 1)
    lan = msgspec.structs.replace(
        testbed.network,
        name="lan",
        driver="macvlan",
        options={"parent": "lan0.20" if "vlan" in testbed.host.features else "lan0"},
    )
    child = MacvlanDriver(conformance.PREFIX).desired_state(lan, [testbed.endpoints[2]], testbed.host)
    return NetworkState(overlay.objects | child.objects, None, overlay.fdb)


def sh(command: str) -> None:
    subprocess.run(["sh", "-ec", command], check=True)


DAMAGE: dict[str, tuple[str, set[str]]] = {
    "a bridge is down": ("ip link set cfb1 down", {"link", "address", "route", "neighbour"}),
    "a bridge has another MTU": ("ip link set cfb1 mtu 1300", {"mtu"}),
    "a bridge has lost an address": ("ip address del fd77::1/64 dev cfb1", {"address"}),
    "a bridge has lost a route": ("ip route del 10.77.0.0/24 dev cfb1", {"route"}),
    "a veth is gone": ("ip link del cfv222222220", {"link", "container-link"}),
    "a veth is not at its bridge": ("ip link set cfv222222220 nomaster", {"bridge-port"}),
    "the VXLAN device is gone": ("ip link del cfx7", {"vxlan"}),
    "the VXLAN device has another VNI": (
        "ip link del cfx7; ip link add cfx7 mtu 1450 master cfb1 type vxlan id 9 dstport 4789 local 10.9.0.1;"
        "ip link set cfx7 up",
        {"vxlan", "fdb"},
    ),
    "an FDB entry is gone": ("bridge fdb del 02:42:0a:4d:00:09 dev cfx7 self", {"fdb"}),
    "a neighbour entry is gone": ("ip neighbour del 10.77.0.9 dev cfb1", {"neighbour"}),
    "a VLAN is gone": (
        "VLAN=$(ip -o link | grep -o 'cfl20[0-9a-f]*' | head -1); ip link del $VLAN",
        {"link", "container-link"},
    ),
    "a container has lost its address": (
        "nsenter --net=e2 ip address del 10.77.0.2/24 dev eth0",
        {"container-address", "container-route"},
    ),
    "a container's link is down": (
        "nsenter --net=e2 ip link set eth0 down",
        {"container-link", "container-address", "container-route"},
    ),
    "a container has lost one of its default routes": (
        "nsenter --net=e2 ip route del default",
        {"container-route"},
    ),
    "a container's link has another MTU": ("nsenter --net=e2 ip link set eth0 mtu 1300", {"mtu"}),
    "a container on the LAN has lost its link": ("nsenter --net=e4 ip link del eth0", {"container-link"}),
}


def checked(testbed: conformance.Testbed, look: Callable[[frozenset[KernelObject], frozenset[FdbEntry]], None]) -> None:
    wanted = state(testbed)
    assert testbed.kernel.converge(wanted.objects, wanted.fdb) == {}
    look(wanted.objects, wanted.fdb)


def wrong(found: list[Finding]) -> set[str]:
    return {f.check for f in found if not f.ok}


def test_a_kernel_as_described_has_a_good_finding_for_each_layer() -> None:
    def case(testbed: conformance.Testbed) -> None:
        def look(objects: frozenset[KernelObject], far: frozenset[FdbEntry]) -> None:
            assert [(f.check, f.detail, f.ok) for f in examine(objects, far, {})] == [
                ("link", f"{5 if 'vlan' in testbed.host.features else 4} as described", True),
                ("vxlan", "1 as described", True),
                ("address", "1 as described", True),
                ("container-link", "3 as described", True),
                ("fdb", "1 as described", True),
                ("neighbour", "2 as described", True),
                ("address-clash", "1 as described", True),
            ]

        checked(testbed, look)

    assert conformance.try_case(case, OverlayDriver, {}) == ""


@pytest.mark.parametrize(("command", "layers"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found_at_its_layer_and_repaired(command: str, layers: set[str]) -> None:
    if "VLAN" in command and "vlan" not in kernel.features():
        pytest.skip("the kernel has no VLANs (CONFIG_VLAN_8021Q)")

    def case(testbed: conformance.Testbed) -> None:
        def look(objects: frozenset[KernelObject], far: frozenset[FdbEntry]) -> None:
            sh(re.sub(r"--net=(e\d)", rf"--net={testbed.directory}/\1", command))
            found = examine(objects, far, {})
            assert wrong(found) == layers
            assert all(f.item in {o.name for o in objects} for f in found if not f.ok and f.check not in ("fdb", "neighbour"))
            testbed.kernel.invalidate({f.item for f in found if f.item})
            testbed.kernel.detect_drift()
            assert testbed.kernel.converge(objects, far) == {}
            assert wrong(examine(objects, far, {})) == set()

        checked(testbed, look)

    assert conformance.try_case(case, OverlayDriver, {}) == ""


def test_a_device_of_others_with_our_vni_is_named() -> None:
    def case(testbed: conformance.Testbed) -> None:
        def look(objects: frozenset[KernelObject], far: frozenset[FdbEntry]) -> None:
            sh("ip link del cfx7; ip link add other type vxlan id 7 dstport 4789")
            found = {f.check: f for f in examine(objects, far, {})}
            assert found["vni"].detail == "link other, which is not ours, has VNI 7 on port 4789"
            assert (found["vni"].target, found["vxlan"].ok) == ("cfx7", False)

        checked(testbed, look)

    assert conformance.try_case(case, OverlayDriver, {}) == ""


def test_a_container_whose_namespace_is_gone_is_named() -> None:
    def case(testbed: conformance.Testbed) -> None:
        def look(objects: frozenset[KernelObject], far: frozenset[FdbEntry]) -> None:
            path = testbed.endpoints[0].netns
            netns.delete(Path(path))
            found = {f.check: f for f in examine(objects, far, {path: "container web"})}
            assert (found["namespace"].target, found["namespace"].fix) == ("container web", "restart the container")

        checked(testbed, look)

    assert conformance.try_case(case, OverlayDriver, {}) == ""
