"""The networks of this node: those made by hand, those of its manifest, and those that containers still leave."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from agent import files
from agent.contract.network import Network, Subnet
from agent.engine.networks import addresses
from agent.errors import ConflictError, ForbiddenError, NotFoundError
from netplugins.driver import Driver

DEFAULT_NETWORK = "bridge"
"""The network of a container that does not name one."""
LINK_NAME_LENGTH = 14
"""The length of a bridge's name: one less than the kernel's limit, for names derived from it."""
MIN_ID_DIGITS = 6
log = logging.getLogger(__name__)


def network_id(name: str) -> str:
    """The ID of the network *name* in the Engine API, 64 hexadecimal digits."""
    return hashlib.sha256(f"network {name}".encode()).hexdigest()


class NetworkTable:
    """The networks of this node by name. Those made by hand are kept in *file*; *prefix* begins the names of our links, and
    *pools* are the CIDRs from which networks made by hand get their subnets."""

    def __init__(self, file: Path, prefix: str, drivers: Mapping[str, Driver], pools: Sequence[str]) -> None:
        self._file = file
        self._prefix = prefix
        self._drivers = drivers
        self._pools = pools
        self._local: dict[str, Network] = self._load()
        self._planned: dict[str, Network] = {}
        """Those of the manifest."""
        self._leaving: dict[str, Network] = {}
        """Out of the manifest, and in use by containers that are on their way out."""

    def _load(self) -> dict[str, Network]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Network])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s is damaged (%s): those of containers are found again", self._file, error)
            self._file.rename(self._file.with_suffix(".damaged"))
            return {}

    def _save(self, networks: dict[str, Network]) -> None:
        """Make these the networks made by hand; if they cannot be written down, nothing changes."""
        files.write_atomically(self._file, msgspec.json.encode(networks))
        self._local = networks

    @property
    def all(self) -> dict[str, Network]:
        """The networks by name: local ones, the manifest's, and those that are leaving."""
        return {**self._local, **self._leaving, **self._planned}

    def get(self, name: str) -> Network:
        """The network by its name, or by at least 6 digits of its ID; makes the default one. Raises NotFoundError."""
        known = self.all
        if name in known:
            return known[name]
        if name == DEFAULT_NETWORK:
            return self.create(Network(name=DEFAULT_NETWORK))
        hits = [n for n in known.values() if len(name) >= MIN_ID_DIGITS and network_id(n.name).startswith(name)]
        if len(hits) == 1:
            return hits[0]
        raise NotFoundError(f"network {name} not found")

    def has(self, name: str) -> bool:
        """Whether `get` finds the network."""
        try:
            self.get(name)
        except NotFoundError:
            return False
        return True

    def set_planned(self, networks: Iterable[Network]) -> None:
        """Replace the manifest's networks. Those that are gone stay until `drop_left`: a container that is still stopping
        keeps its networks, though no other is to have them any more."""
        self._leaving |= self._planned
        self._planned = {n.name: n for n in networks}

    def drop_left(self, used: Collection[str]) -> None:
        """Forget networks that are leaving, except those *used* (names)."""
        self._leaving = {name: network for name, network in self._leaving.items() if name in used}

    def create(self, network: Network, *, ipv6: bool = False) -> Network:
        """Add a network made by hand (Engine API); one without an IPv4 subnet gets a free one, and with *ipv6* an IPv6 one too.

        Raises BadRequestError, ConflictError, ForbiddenError or NotFoundError: a network that cannot be made must never
        become part of the state that is computed from all of them."""
        known = self.all
        if network.name in known:
            raise ConflictError(f"network with name {network.name} already exists")
        if network.driver not in self._drivers:
            raise NotFoundError(
                f'plugin "{network.driver}" not found: network {network.name} can have the drivers '
                f"{', '.join(sorted(self._drivers))} on this node"
            )
        taken = [s.cidr for n in known.values() for s in n.subnets]
        subnets = tuple(addresses.validated(network.name, s) for s in network.subnets)
        for subnet in subnets:
            if other := next((cidr for cidr in taken if addresses.overlap(subnet.cidr, cidr)), None):
                raise ForbiddenError(
                    f"Pool overlaps with other one on this address space: {subnet.cidr} of network {network.name} overlaps "
                    f"with {other}"
                )
        if not any(":" not in s.cidr for s in subnets):
            subnets = (addresses.free_subnet(self._pools, taken), *subnets)
        if ipv6 and not any(":" in s.cidr for s in subnets):
            subnets = (*subnets, addresses.unique_local_subnet(network.name))
        network = msgspec.structs.replace(network, subnets=subnets)
        self._save(self._local | {network.name: network})
        return network

    def recover(self, name: str, subnets: tuple[Subnet, ...]) -> None:
        """Add a network that containers use and no document names; without *subnets* it gets a free one."""
        taken = [s.cidr for n in self.all.values() for s in n.subnets]
        network = Network(name=name, subnets=subnets or (addresses.free_subnet(self._pools, taken),))
        self._save(self._local | {name: network})

    def remove(self, name: str, users: Sequence[str]) -> None:
        """Remove a network made by hand that has no *users* (names of containers). Raises NotFoundError, or ConflictError if it
        has some or belongs to a stack."""
        network = self.get(name)
        if users:
            raise ConflictError(f"network {name} id {network_id(name)} has active endpoints")
        if network.name in self._planned:
            raise ConflictError(f"network {name} belongs to stack {network.stack}: use `pystack down`")
        self._save({n: one for n, one in self._local.items() if n != network.name})

    def link(self, name: str) -> str:
        """The name of the main link (a bridge) of the network *name*."""
        network = self._planned.get(name) or self._leaving.get(name) or self._local.get(name)
        asked = dict(network.options).get("com.docker.network.bridge.name", "") if network else ""
        if asked.startswith(self._prefix):
            return asked
        return f"{self._prefix}b{network_id(name)[: LINK_NAME_LENGTH - len(self._prefix)]}"
