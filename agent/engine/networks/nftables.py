"""The node's nftables table as it was last applied: only differences are applied, and changes by others are noticed."""

from __future__ import annotations

import functools
import logging
import socket
from collections.abc import Iterable, Sequence, Set
from itertools import chain

from agent.contract.cluster import ServiceAddress
from netplugins import cache, conntrack, firewall, foreign_firewalls
from netplugins import driver as drivers
from netplugins.errors import NetworkError
from netplugins.linux import monitors, netlink
from netplugins.linux.uapi import NETLINK_NETFILTER

log = logging.getLogger(__name__)


class NftablesApplier:
    """All methods but `read_events` block; they are called on the thread that changes the kernel."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.made: firewall.Ruleset | None = None
        """The applied ruleset; None if the state of the kernel is not known."""
        self._targets = conntrack.Targets()
        self._passable = False
        """Whether other firewalls of the host let our forwarded packets through, as far as is known."""
        self._revision = 0
        self._own = 0
        self._socket: netlink.Socket | None = None
        """Kept: the kernel takes 10 ms to close one that changed rules."""

    def close(self) -> None:
        """Close the netlink socket."""
        if self._socket:
            self._socket.close()

    @property
    def _netfilter(self) -> netlink.Socket:
        self._socket = self._socket or netlink.Socket(NETLINK_NETFILTER)
        return self._socket

    def invalidate(self) -> None:
        """Others may have changed rules: apply ours again, and check the other firewalls."""
        self.made = None
        self._passable = False

    def read_events(self, monitor: socket.socket) -> bool:
        """Read the events of the *monitor*. Returns whether others made transactions too."""
        self._own -= monitors.transactions(monitor)
        if self._own >= 0:
            return False
        self._own = 0
        self.invalidate()
        return True

    def enforce(self, wanted: firewall.Ruleset, targets: conntrack.Targets, alive: Set[str]) -> None:
        """Make the table *wanted*; connections that it sends elsewhere than the last one start again, except to those *alive*.
        Raises NetworkError."""
        if wanted != self.made:
            self._change(wanted)
            self.made = wanted
            self._forget_flows(targets, alive)

    def _change(self, wanted: firewall.Ruleset) -> None:
        """Apply one transaction: the differences if the shape stayed, else the whole table."""
        self._revision += 1
        changes = wanted.changes(self.made) if self.made else None
        if changes == []:
            return
        self._own += 1  # before the transaction: its event may come at once
        try:
            if changes is None:
                firewall.apply(wanted.whole(self._revision))
            else:
                wanted.amend(changes, self._netfilter)
        except NetworkError:
            self._own -= 1
            if changes is None:
                raise
            self.made = None  # the kernel's table is not the one that the difference was computed from
            self._change(wanted)

    def _forget_flows(self, now: conntrack.Targets, alive: Set[str]) -> None:
        before, self._targets = self._targets, now
        if is_stale := conntrack.stale_flow_filter(before, now, alive):
            try:
                conntrack.delete_flows(self._netfilter, is_stale)
            except NetworkError as error:
                log.warning("connections of what was there before stay as they are: %s", error)

    def sync_foreign_forward_chains(self, *, forwarding: bool) -> list[str]:
        """Make other firewalls let forwarded packets through, while any are *forwarding*. Returns the changes to them, in
        words."""
        if forwarding == self._passable:
            return []
        self._passable = forwarding
        if not forwarding:
            foreign_firewalls.remove_rules(self.prefix)
            return []
        return foreign_firewalls.allow_forward(self.prefix)


def trim_caches(services: int) -> None:
    """Forget those that are gone, when there are only that many."""
    cache.trim(vip_backends, services)
    cache.trim(port_backends, services)


@functools.lru_cache(None)
def vip_backends(service: ServiceAddress) -> tuple[drivers.LoadBalancer, ...]:
    """A service's own addresses. Remembered, for all are asked for whenever one changes."""
    return tuple(
        drivers.LoadBalancer(
            version=version,
            address=address,
            ports=(),
            backends=_backends(service, version),
            weights=_weights(service, version),
        )
        for version, address in ((4, service.ipv4), (6, service.ipv6))
        if address
    )


@functools.lru_cache(None)
def port_backends(service: ServiceAddress, near: frozenset[str]) -> tuple[drivers.LoadBalancer, ...]:
    """The ports of a service: to backends that are *near*, where there are some and no weights say who gets how many."""
    ports = tuple((p.published, p.protocol, p.target) for p in service.ports)
    out = []
    for version in (4, 6):
        if backends := _backends(service, version):
            weights = _weights(service, version)
            chosen = backends if weights else tuple(b for b in backends if b in near) or backends
            out.append(drivers.LoadBalancer(version=version, address="", ports=ports, backends=chosen, weights=weights))
    return tuple(out)


def _backends(service: ServiceAddress, version: int) -> tuple[str, ...]:
    return tuple(b for v in service.backends if (b := v.ipv4 if version == 4 else v.ipv6))


def _weights(service: ServiceAddress, version: int) -> tuple[int, ...]:
    """Those of `_backends`."""
    if not service.weights:
        return ()
    pairs = zip(service.backends, service.weights, strict=True)
    return tuple(weight for v, weight in pairs if (v.ipv4 if version == 4 else v.ipv6))


def targets(published: Iterable[drivers.PortMapping], balanced: Sequence[drivers.LoadBalancer]) -> conntrack.Targets:
    """Where a ruleset for these sends connections."""
    out: dict[tuple[str, int], set[str]] = {}
    for port in published:
        out.setdefault((port.protocol, port.port), set()).update(a for a in (port.ipv4, port.ipv6) if a)
    out["", 0] = set(chain.from_iterable(one.backends for one in balanced if not one.ports))
    for one in balanced:
        for number, protocol, _ in one.ports:
            out.setdefault((protocol, number), set()).update(one.backends)
    return conntrack.Targets({key: frozenset(addresses) for key, addresses in out.items()})
