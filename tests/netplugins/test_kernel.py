"""Making the kernel agree, on the real one: what goes wrong for one network is not paid for by the others."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import msgspec
import pytest

from netplugins import conformance
from netplugins.bridge import BridgeDriver
from netplugins.driver import Bridge, FdbEntry, KernelObject, Vxlan
from netplugins.errors import NetworkError
from netplugins.kernel import Kernel
from netplugins.linux import netlink, netns, rtnetlink
from netplugins.objects.fdb import KernelEntries

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def test_after_an_error_no_link_that_was_right_is_made_again() -> None:
    def case(ground: conformance.Testbed) -> None:
        ground.make(0, 1)
        before, inside = ground.own(), conformance.indices(ground)
        refused = Bridge(f"{conformance.PREFIX}bad", "02:00:00:00:00:01", 1, ())  # an MTU that no bridge may have
        with pytest.raises(NetworkError):
            ground.kernel.converge(ground.desired_state(0, 1).objects | {refused})
        ground.make(0, 1)
        assert ground.own() == before
        assert conformance.indices(ground) == inside
        ground.reach(0, 1)

    assert conformance.try_case(case, BridgeDriver, {}) == ""


def test_an_mtu_that_fails_in_one_container_is_not_paid_for_by_the_others() -> None:
    """A container's namespace may be gone while the MTU of its network changes: an exception ended the whole pass."""

    def case(ground: conformance.Testbed) -> None:
        ground.make(0, 1)
        gone = ground.endpoints[1].netns
        netns.delete(Path(gone))
        ground.host = msgspec.structs.replace(ground.host, mtu=1300)
        wanted = ground.desired_state(0, 1)
        assert list(ground.kernel.converge(wanted.objects)) == [gone]
        with netlink.Socket() as sock:
            assert {link.mtu for link in sock.links() if link.name.startswith(conformance.PREFIX)} == {1300}

    assert conformance.try_case(case, BridgeDriver, {}) == ""


def remote(node: int, number: int = 9) -> FdbEntry:
    return FdbEntry(
        bridge="cfb1",
        vxlan="cfx7",
        mac=f"02:42:0a:4d:00:{number:02x}",
        underlay=f"10.9.0.{node}",
        addresses=(f"10.77.0.{number}", f"fd77::{number}"),
    )


FDB_CHANGES = {
    "the first entries": ([], [remote(2), remote(3, 10)]),
    "an endpoint that goes": ([remote(2), remote(3, 10)], [remote(2)]),
    "an endpoint that moves to another node": ([remote(2)], [remote(3)]),
    "an endpoint with another address": (
        [remote(2)],
        [msgspec.structs.replace(remote(2), addresses=("10.77.0.44", "fd77::9"))],
    ),
    "an address that goes to another endpoint": (
        [remote(2)],
        [msgspec.structs.replace(remote(3, 10), addresses=remote(2).addresses)],
    ),
}
OVERLAY: frozenset[KernelObject] = frozenset(
    {
        Bridge("cfb1", "02:42:0a:4d:00:01", 1450, ()),
        Vxlan(name="cfx7", master="cfb1", vni=7, port=4789, local="10.9.0.1", mtu=1450),
    }
)


@pytest.mark.parametrize("restarted", [False, True], ids=["tracked", "after a restart"])
@pytest.mark.parametrize(("before", "after"), FDB_CHANGES.values(), ids=FDB_CHANGES)
def test_fdb_and_neighbour_entries_are_exactly_the_described(
    before: list[FdbEntry], after: list[FdbEntry], restarted: bool
) -> None:
    def body() -> KernelEntries:
        kernel = Kernel("cf")
        kernel.converge(OVERLAY, frozenset(before))
        if restarted:
            kernel.close()
            kernel = Kernel("cf")
            kernel.adopt(OVERLAY)
        kernel.converge(OVERLAY, frozenset(after))
        assert not kernel.detect_drift()
        kernel.close()
        with netlink.Socket() as sock:
            found = KernelEntries.dump(sock)
            assert all(found.has(entry, sock.index("cfx7"), sock.index("cfb1")) for entry in after)
        return found

    found = netns.isolated(body)
    addresses = sorted(a for entry in after for a in entry.addresses)
    assert sorted(str(ipaddress.ip_address(a)) for _, a in found.neighbours) == sorted(addresses)
    assert {mac: len(underlays) for (_, mac), underlays in found.underlays.items()} == {e.mac: 1 for e in after}


def test_an_entry_that_others_delete_is_found_and_written_again() -> None:
    def body() -> None:
        kernel = Kernel("cf")
        kernel.converge(OVERLAY, frozenset({remote(2), remote(3, 10)}))
        with netlink.Socket() as sock:
            sock.run([rtnetlink.neighbour(sock.index("cfb1"), "fd77::9", remote(2).mac, add=False)])
            assert kernel.detect_drift()
            kernel.converge(OVERLAY, frozenset({remote(2), remote(3, 10)}))
            assert not kernel.detect_drift()
            assert KernelEntries.dump(sock).has(remote(2), sock.index("cfx7"), sock.index("cfb1"))
        kernel.close()

    netns.isolated(body)
