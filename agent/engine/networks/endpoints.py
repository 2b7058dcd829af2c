"""Which containers are on which networks of this node, with their addresses and published ports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agent.contract.container import Attachment, Container
from agent.engine.networks import addresses, ports
from agent.engine.networks.table import DEFAULT_NETWORK, NetworkTable
from agent.engine.networks.views import EndpointCache, EndpointView
from agent.engine.records import Endpoint, Record
from agent.errors import ConflictError, ForbiddenError
from agent.paths import Paths
from netplugins.linux import netns


class EndpointTable:
    """The endpoints of containers on *networks*. *paths* has the directory of their network namespaces."""

    def __init__(self, networks: NetworkTable, paths: Paths) -> None:
        self.attached: dict[str, Record] = {}
        """By ID, the containers whose links, names and ports kernel and data path must have."""
        self._starting: dict[str, Record] = {}
        """By ID, the containers that have addresses and ports reserved, and are not attached yet."""
        self._networks = networks
        self._paths = paths
        self._views = EndpointCache()

    def netns(self, record: Record) -> Path:
        """The network namespace of *record*."""
        return self._paths.network_namespace(record.id)

    def reserve(self, record: Record) -> None:
        """Reserve endpoints and published ports for *record*, which will be attached: no other gets the same until it is
        released. Raises ConflictError, NotFoundError."""
        self.assign(record)
        others = [r for r in self._holders() if r.id != record.id]
        ports.assign(record, others)
        if not record.task:  # the planner knows the addresses of a stack, also those that are about to be released
            for other in others:
                if twice := _addresses(record) & _addresses(other):
                    network, address = min(twice)
                    raise ConflictError(f"Address already in use: {address} of network {network} is container {other.name}'s")
        self._starting[record.id] = record

    def _holders(self) -> list[Record]:
        return [*self._starting.values(), *self.attached.values()]

    def assign(self, record: Record, *, free: bool = True) -> None:
        """Set the endpoints of *record*, with the addresses of its attachments. With *free*, missing ones are allocated;
        without, networks need not exist yet. Raises NotFoundError."""
        known, wanted = self._networks, record.container.attachments
        if not free:
            wanted = tuple(a for a in wanted if known.has(a.network))
        nowhere = not record.container.attachments and record.container.network_mode in ("", "bridge", "default")
        if nowhere and not record.task:
            wanted = (Attachment(network=DEFAULT_NETWORK),)
        endpoints = [self.resolve(record, attachment, order, free=free) for order, attachment in enumerate(wanted)]
        ranked = sorted(
            zip(endpoints, wanted, strict=True),
            key=lambda pair: (-pair[1].gw_priority, known.get(pair[0].network).internal, pair[0].network),
        )
        if ranked:
            ranked[0][0].default = True
        record.endpoints = endpoints

    def resolve(self, record: Record, attachment: Attachment, order: int, *, free: bool = True) -> Endpoint:
        """The endpoint of *record* that *attachment* asks for, its interface number *order*. With *free*, an address that it
        does not give is the one that the container had, or a free one. Raises NotFoundError."""
        network = self._networks.get(attachment.network)
        old = next((e for e in record.endpoints if e.network == network.name), None)
        endpoint = Endpoint(
            network=network.name,
            ipv4=attachment.ipv4,
            ipv6=attachment.ipv6,
            mac=attachment.mac,
            aliases=attachment.aliases,
            order=order,
            interface=attachment.interface,
            link_local=attachment.link_local,
            bandwidth=attachment.bandwidth,
        )
        for subnet in network.subnets if free else ():
            field = "ipv6" if ":" in subnet.cidr else "ipv4"
            if not getattr(endpoint, field):
                kept = getattr(old, field) if old else ""
                used = self._used(network.name, field, record.id)
                value = kept if kept and kept not in used else addresses.free_address(subnet, used)
                setattr(endpoint, field, value)
        return endpoint

    def with_one_more(self, record: Record, attachment: Attachment) -> list[Endpoint]:
        """The endpoints of *record* with one for *attachment*. Raises ForbiddenError if it is on that network already, or
        another container has the address."""
        network = self._networks.get(attachment.network)
        if any(e.network == network.name for e in record.endpoints):
            raise ForbiddenError(f"endpoint with name {record.name} already exists in network {network.name}")
        before = record.endpoints
        endpoint = self.resolve(record, attachment, max((e.order for e in before), default=-1) + 1)
        endpoint.default = not any(e.default for e in before)
        if record.id in self.attached:
            for field, asked in (("ipv4", attachment.ipv4), ("ipv6", attachment.ipv6)):
                if asked and asked in self._used(network.name, field, record.id):
                    raise ForbiddenError(f"Address already in use: {asked} of network {network.name} is another container's")
        return [*before, endpoint]

    @staticmethod
    def without(record: Record, network: str) -> list[Endpoint]:
        """The endpoints of *record* without the one on *network*. Raises ConflictError if it is not on it."""
        rest = [e for e in record.endpoints if e.network != network]
        if len(rest) == len(record.endpoints):
            raise ConflictError(f"container {record.id} is not connected to network {network}")
        if rest and not any(e.default for e in rest):
            rest[0].default = True
        return rest

    def readdress(self, record: Record, container: Container) -> None:
        """Give *record* the addresses of *container*."""
        record.container = container
        self.assign(record)
        self._views.forget(record)

    def replace(self, record: Record, endpoints: list[Endpoint]) -> None:
        """Give *record* these *endpoints*."""
        record.endpoints = endpoints
        self._views.forget(record)

    def _used(self, network: str, field: str, except_for: str) -> set[str]:
        return {getattr(e, field) for r in self._holders() if r.id != except_for for e in r.endpoints if e.network == network}

    def attach(self, record: Record) -> None:
        """Add *record* to those whose state kernel and data path must have."""
        self.attached[record.id] = record
        self._starting.pop(record.id, None)

    def release(self, record: Record) -> None:
        """Free the addresses and ports of *record*."""
        self.attached.pop(record.id, None)
        self._starting.pop(record.id, None)
        self._views.forget(record)

    def adopt(self, records: Iterable[Record]) -> None:
        """Attach those of *records* whose network namespace exists: they ran on while there was no agent."""
        for record in records:
            if netns.is_namespace(self.netns(record)):
                self.attached[record.id] = record

    def users_of(self, network: str) -> list[str]:
        """The names of the attached containers on *network*."""
        return [r.name for r in self.attached.values() if any(e.network == network for e in r.endpoints)]

    def networks_in_use(self) -> set[str]:
        """The names of the networks that attached containers are on."""
        return {e.network for r in self.attached.values() for e in r.endpoints}

    def views(self) -> dict[str, EndpointView]:
        """The view of each attached container, by ID."""
        return {ident: self._views.of(record, str(self.netns(record))) for ident, record in self.attached.items()}


def _addresses(record: Record) -> set[tuple[str, str]]:
    """(network, address) of all its endpoints."""
    return {(e.network, address) for e in record.endpoints for address in (e.ipv4, e.ipv6) if address}
