"""Makes the kernel's objects equal to those that drivers describe.

What the kernel has is dumped once at the start and after a failure, and tracked in between: a dump for each container
would make attaching quadratic. `objects` knows the single kinds.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence

from netplugins import wireguard
from netplugins.driver import FdbEntry, KernelObject
from netplugins.errors import NetworkError
from netplugins.linux import netlink, rtnetlink, sysctl
from netplugins.linux.link_kinds import link_kinds
from netplugins.objects import parented_link, shaper
from netplugins.objects.fdb import FdbTable
from netplugins.objects.kind import Stage, missing_addresses
from netplugins.objects.kinds import can_update, kind_of
from netplugins.objects.links import Links


class Kernel:
    """The links of one instance: those whose name begins with *prefix*. Blocking; call it from one worker thread."""

    def __init__(self, prefix: str) -> None:
        self._links = Links(prefix)
        self._fdb = FdbTable(self._links)
        self._present: dict[str, KernelObject | None] | None = None
        """None: not known yet."""

    def close(self) -> None:
        """Close the netlink socket."""
        self._links.close()

    def observe(self) -> dict[str, KernelObject | None]:
        """Names of this instance's links → the description that each was last made equal to; None if only the name is
        known."""
        if self._present is None:
            self._present = self._refreshed()
        return self._present

    def _refreshed(self) -> dict[str, KernelObject | None]:
        """What exists now. Objects from before a failure stay known: to recreate a container's link breaks its
        connections."""
        known = self._present or {}
        self._fdb.invalidate()
        return {name: known.get(name) for name in self._links.refresh()}

    def invalidate(self, names: Iterable[str]) -> None:
        """The objects called *names*, and all FDB entries, differ from their description: the next `converge` updates
        bridges and tunnels in place, and recreates other objects."""
        present = self.observe()
        for name in names:
            if name in self._links.parented:
                self._delete([name])
            elif name in present:
                present[name] = None
        self._fdb.invalidate()

    def detect_drift(self) -> bool:
        """Forget what the kernel has lost of the objects, so that `converge` makes it again. Returns whether it lost any."""
        present = self.observe()
        there = self._links.forget_deleted()
        gone = [n for n in present if n not in there and n not in self._links.parented] + self._links.forget_orphans()
        for name in gone:
            present.pop(name, None)
        damaged = self._without_addresses()
        for name in damaged:
            present[name] = None
        return bool(self._fdb.detect_drift() or gone or damaged)

    def _without_addresses(self) -> list[str]:
        """The names of known objects that lack an address of theirs on the host, or its route."""
        held = {name: kind_of(item).addresses(item) for name, item in self.observe().items() if item}
        versions = {6 if ":" in cidr else 4 for cidrs in held.values() for cidr in cidrs}
        addresses, routes = self._links.socket.addresses(versions), self._links.socket.routes(versions)
        index = self._links.index
        return [n for n, cidrs in held.items() if any(missing_addresses(index(n), cidrs, addresses, routes))]

    def adopt(self, described: Iterable[KernelObject]) -> None:
        """After a restart: take the existing links for the objects *described* under their names. Those that can be updated
        in place without being known are not taken: `converge` does that."""
        present = self.observe()
        for item in described:
            if item.name in present and present[item.name] is None and not kind_of(item).updated_unseen:
                present[item.name] = item

    def converge(self, described: frozenset[KernelObject], far: frozenset[FdbEntry] = frozenset()) -> dict[str, str]:
        """Make the links of this instance equal to *described*, and the FDB entries of its VXLAN devices to *far*.

        Idempotent. Returns what failed for single containers: namespace → why. Raises NetworkError or OSError, and tries
        no further, where the kernel refuses what several containers need."""
        present = self.observe()
        wanted = {item.name: item for item in described}
        try:
            self._delete_stale(wanted)
            todo = [item for item in wanted.values() if (was := present.get(item.name)) is not item and was != item]
            todo += self._built_on(todo, wanted)
            todo.sort(key=lambda o: (kind_of(o).stage, kind_of(o).order(o), o.name))
            overlays = [item for item in todo if kind_of(item).stage <= Stage.VXLAN]
            for item in overlays:
                self._make(item)
                present[item.name] = item
            self._fdb.sync(far)
            return self._make_each(todo[len(overlays) :], present)
        except (NetworkError, OSError):
            self._present = self._refreshed()
            raise

    def _built_on(self, made: Iterable[KernelObject], wanted: Mapping[str, KernelObject]) -> list[KernelObject]:
        """Those of *wanted* that stay and change a link that was *made*: nothing is known of them any more."""
        names, present = {item.name for item in made}, self.observe()
        again = [i for i in wanted.values() if i.name not in names and kind_of(i).built_on(i) in names]
        for item in again:
            present[item.name] = None
        return again

    def _delete_stale(self, wanted: Mapping[str, KernelObject]) -> None:
        """Delete what is not *wanted*, or cannot become so in place."""
        self._delete(
            [  # most objects are the very ones of the last time, which spares the comparison of their parts
                name
                for name, was in self.observe().items()
                if (now := wanted.get(name)) is None
                or (was is not None and was is not now and was != now and not can_update(was, now))
            ]
        )

    def _delete(self, names: Sequence[str]) -> None:
        inside = [self._links.parented[n][0] for n in names if n in self._links.parented]
        for item in inside:
            parented_link.delete(item, self._links)
        shaper.release(names, self._links)
        self._links.delete([n for n in names if n not in {item.name for item in inside}])
        self._fdb.forget(names)
        present = self.observe()
        for name in names:
            present.pop(name, None)

    def _make(self, item: KernelObject) -> bool:
        """Create *item*, or make what exists under its name equal to it. Returns whether it was created."""
        kind, present = kind_of(item), self.observe()
        was = present.get(item.name)
        if was is not None or (item.name in present and kind.updated_unseen):
            kind.update(item, was, self._links)
            return False
        if kind.adopt(item, self._links):
            return False
        if item.name in present:  # unfinished after a crash, or damaged
            self._delete([item.name])
        kind.create(item, self._links)
        return True

    def _make_each(self, items: Iterable[KernelObject], present: dict[str, KernelObject | None]) -> dict[str, str]:
        """Make *items*, and finish those together that need it. Returns namespace → why it failed."""
        problems: dict[str, str] = {}
        unfinished: dict[type[KernelObject], list[KernelObject]] = {}
        for item in items:
            kind = kind_of(item)
            try:
                if self._make(item) and kind.finished_together:
                    unfinished.setdefault(type(item), []).append(item)
                else:
                    present[item.name] = item
            except (NetworkError, OSError) as error:
                if not (namespace := kind.namespace(item)):
                    raise
                problems.setdefault(namespace, str(error))
                self._note_unfinished(item)
        for group in unfinished.values():
            kind = kind_of(group[0])
            failed = kind.finish(group, self._links)
            problems |= failed
            for item in group:
                if kind.namespace(item) in failed:
                    self._note_unfinished(item)
                else:
                    present[item.name] = item
        return problems

    def _note_unfinished(self, item: KernelObject) -> None:
        """*item* could not be made: where a link of its name exists, its state is unknown, unless it could not be updated."""
        present = self.observe()
        if present.get(item.name) is None:
            present.pop(item.name, None)
            if item.name in self._links.parented or self._links.find(item.name):
                present[item.name] = None


def links() -> frozenset[str]:
    """The names of all links of this network namespace."""
    return frozenset(name for _, name in socket.if_nameindex())


def prepare_namespace() -> None:
    """Set a new namespace up, from inside: loopback, and ports below 1024 open to every user as in Docker."""
    with netlink.Socket() as sock:
        sock.run([rtnetlink.link_up(1, "lo")])
    sysctl.open_low_ports()


def features() -> frozenset[str]:
    """The kinds of links that this host can create: those of its kernel, and WireGuard where wireguard-go is installed."""
    return link_kinds() | ({"wireguard"} if wireguard.has_program() else set())
