"""A container as its networks see it: its endpoints for drivers, and its DNS names."""

from __future__ import annotations

import msgspec

from agent.contract.bandwidth import Bandwidth
from agent.engine.records import Endpoint, Record
from netplugins import driver as drivers
from netplugins.resolver.table import View


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """*names* are (network, name, addresses)."""

    endpoints: tuple[drivers.Endpoint, ...] = ()
    view: View | None = None
    names: tuple[tuple[str, str, tuple[str, ...]], ...] = ()


class EndpointCache:
    """The view of each record, cached: there are many, and one changes at a time."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[str, list[Endpoint], EndpointView]] = {}

    def of(self, record: Record, netns: str) -> EndpointView:
        """The view of *record*'s endpoints in *netns*, computed when its name or endpoints change."""
        known = self._made.get(record.id)
        if known and known[0] == record.name and known[1] is record.endpoints:
            return known[2]
        made = _endpoint_view(record, netns)
        self._made[record.id] = record.name, record.endpoints, made
        return made

    def forget(self, record: Record) -> None:
        """Drop the view of *record*."""
        self._made.pop(record.id, None)


def _rates(bandwidth: Bandwidth | None) -> drivers.Rates:
    if bandwidth is None:
        return drivers.UNLIMITED
    return drivers.Rates(ingress=bandwidth.ingress or 0, egress=bandwidth.egress or 0, burst=bandwidth.burst or 0)


def _endpoint_view(record: Record, netns: str) -> EndpointView:
    if not record.endpoints:
        return EndpointView()
    called = [record.name, record.short]
    if record.container.hostname:
        called.append(record.container.hostname)
    if record.service and record.task:  # one that is run by hand beside them does not answer for its service
        called += [record.service, f"tasks.{record.service}"]
    return EndpointView(
        endpoints=tuple(
            drivers.Endpoint(
                id=record.id,
                network=e.network,
                netns=netns,
                order=e.order,
                interface=e.interface,
                ipv4=e.ipv4,
                ipv6=e.ipv6,
                mac=e.mac,
                default=e.default,
                link_local=e.link_local,
                rates=_rates(e.bandwidth),
            )
            for e in record.endpoints
        ),
        view=View(
            netns=netns,
            networks=tuple(e.network for e in record.endpoints),
            upstreams=record.container.dns,
            links=dict(record.container.links),
        ),
        names=tuple(
            (e.network, name, tuple(a for a in (e.ipv4, e.ipv6) if a))
            for e in record.endpoints
            for name in dict.fromkeys(n.lower() for n in (*called, *e.aliases))
        ),
    )
