"""Compares the kernel with what drivers describe: each difference is a finding that names its layer.

Changes nothing; `Kernel.invalidate` and `Kernel.converge` repair what is found.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from netplugins import address_conflict
from netplugins.driver import FdbEntry, KernelObject, ParentedLink, Vxlan
from netplugins.linux import netlink, netns
from netplugins.objects import fdb
from netplugins.objects.kind import ContainerLink, Difference, View
from netplugins.objects.kinds import kind_of
from netplugins.objects.parented_link import probes_of
from netplugins.objects.vxlan import conflicting_devices

REPAIR = "pystack doctor --repair puts it back"
LAYERS = ("link", "vxlan", "tunnel", "address", "container-link", "bandwidth", "fdb", "neighbour", "address-clash")
"""The layers that have a finding of their own where nothing differs, in this order."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """*check* is the layer, *target* the thing that was checked, *detail* its state. Where it is not *ok*, *fix* says what to
    do, and *item* is the name of the described object that differs, "" if there is none. *repaired*: it was not."""

    check: str
    target: str
    ok: bool = False
    detail: str
    fix: str = ""
    item: str = ""
    repaired: bool = False


def examine(objects: Iterable[KernelObject], far: Collection[FdbEntry], labels: Mapping[str, str]) -> list[Finding]:
    """Every difference, and one finding that is ok for each layer without one. *labels*: name of a link or path of a
    namespace → the network or container that it belongs to. Blocks; call it in a worker thread."""
    host, objects = View.dump(), list(objects)
    found: list[Finding] = []
    inside: dict[str, list[tuple[KernelObject, ContainerLink]]] = {}
    for item in objects:
        kind = kind_of(item)
        label = labels.get(item.name, "") or labels.get(kind.namespace(item), item.name)
        found += [_finding(d, f"{item.name} ({label})", item.name) for d in kind.observe(item, host)]
        if link := kind.container_link(item):
            inside.setdefault(link.netns, []).append((item, link))
    for path, links in inside.items():
        found += _container(path, links, labels.get(path, path))
    found += _vni_conflicts(objects, host)
    found += _entries(far, host, labels)
    found += _address_conflicts([i for i in objects if isinstance(i, ParentedLink)], labels)
    return found + _without_difference(found, objects, far)


def _finding(difference: Difference, target: str, item: str = "") -> Finding:
    return Finding(check=difference.check, target=target, detail=difference.detail, fix=REPAIR, item=item)


def _container(path: str, links: Sequence[tuple[KernelObject, ContainerLink]], label: str) -> Iterator[Finding]:
    """The differences inside one container's namespace."""
    try:
        view = netns.enter(path, View.dump)
    except OSError as error:
        detail, fix = f"it cannot be entered: {error.strerror}", "restart the container"
        yield Finding(check="namespace", target=label, detail=detail, fix=fix, item=links[0][0].name)
        return
    for item, link in links:
        for difference in link.observe(view):
            yield _finding(difference, f"{link.interface} in {label}", item.name)


def _vni_conflicts(objects: Iterable[KernelObject], host: View) -> Iterator[Finding]:
    for ours, other in conflicting_devices((o for o in objects if isinstance(o, Vxlan)), host):
        yield Finding(
            check="vni",
            target=ours.name,
            detail=f"link {other.name}, which is not ours, has VNI {other.vni} on port {other.port}",
            fix=f"delete {other.name}, or give it another VNI",
        )


def _entries(far: Collection[FdbEntry], host: View, labels: Mapping[str, str]) -> Iterator[Finding]:
    """FDB and neighbour entries of remote endpoints that differ."""
    if not far:
        return
    with netlink.Socket() as sock:
        kernel = fdb.KernelEntries.dump(sock)
    for entry, difference in fdb.observe(far, kernel, host):
        yield _finding(difference, f"{', '.join(entry.addresses)} on {labels.get(entry.bridge, entry.bridge)}")


def _address_conflicts(links: Iterable[ParentedLink], labels: Mapping[str, str]) -> Iterator[Finding]:
    """Addresses on a LAN that another host has too."""
    probes = probes_of(links)
    try:
        held = address_conflict.conflicts(list(probes)) if probes else {}
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENETDOWN, errno.ENOENT):
            raise
        return  # a missing interface is a finding of its own
    for probe, mac in held.items():
        yield Finding(
            check="address-clash",
            target=f"{probe.interface} in {labels.get(probe.path, probe.path)}",
            detail=f"{probe.address} is held by {mac} on the LAN too",
            fix="take it from that machine, or keep it off the network with aux_addresses",
        )


def _without_difference(found: Iterable[Finding], objects: Iterable[KernelObject], far: Collection[FdbEntry]) -> list[Finding]:
    """A finding that is ok for each layer that was checked and has no difference."""
    counts = Counter(check for item in objects for check in kind_of(item).checks(item))
    counts += Counter({"fdb": len(far), "neighbour": sum(len(e.addresses) for e in far)})
    wrong = {f.check for f in found}
    return [
        Finding(check=check, target="kernel", ok=True, detail=f"{counts[check]} as described")
        for check in LAYERS
        if counts[check] and check not in wrong
    ]
