"""The names that each container can resolve, from the state document.

A container resolves the names of its networks: services and containers, aliases, `tasks.NAME`, and each of them as
NAME.NETWORK. Source: Docker's embedded DNS server, as its documentation describes it and as observed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec

from netplugins.resolver import message


class View(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One container's DNS: its namespace, its networks, the servers for other names (*upstreams*), and names that only this
    container has (*links*: name → the name that it stands for)."""

    netns: str
    networks: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    links: dict[str, str] = {}


class Forward(msgspec.Struct, kw_only=True, frozen=True):
    """A port of the host with a bound socket: *host* and *port* on the host; connections of clients that the firewall does not
    translate (loopback, IPv6 clients of an IPv4 container) are relayed to one of *targets*."""

    protocol: str
    host: str
    port: int
    targets: tuple[str, ...]
    target_port: int


class DataplaneState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The document of the data path's process: *views* by container; *names*, network → name → addresses; *ttl* in seconds."""

    views: dict[str, View] = {}
    names: dict[str, dict[str, tuple[str, ...]]] = {}
    forwards: tuple[Forward, ...] = ()
    ttl: int = 0


class Names:
    """Answers questions over the names of one document; a changed document gets a new object."""

    def __init__(self, names: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """*names*: network → name in lower case → addresses."""
        self._names = names
        self._reverse: dict[str, dict[str, str]] = {}

    def _pointers(self, network: str) -> dict[str, str]:
        """Names by the address's PTR name; built at the first question, because most networks never get one."""
        if network not in self._reverse:
            known = self._reverse[network] = {}
            for name, addresses in self._names.get(network, {}).items():
                for address in addresses:
                    pointer = message.reverse_name(address)
                    # the longest name is the container's own; those of services and aliases are shared
                    if len(name) > len(known.get(pointer, "")) and not name.startswith("tasks."):
                        known[pointer] = name
        return self._reverse[network]

    def addresses(self, name: str, networks: Sequence[str]) -> tuple[str, ...] | None:
        """All addresses of *name* on *networks*, in an order by chance; None if none of them has the name."""
        found: list[str] = []
        for network in networks:
            table = self._names.get(network, {})
            hit = table.get(name)
            if hit is None and "." in name:
                base, _, suffix = name.rpartition(".")
                if suffix == network.lower() or network.lower().endswith(f"_{suffix}"):
                    hit = table.get(base)
            found += hit or ()
        if not found:
            return None
        unique = list(dict.fromkeys(found))
        random.shuffle(unique)
        return tuple(unique)

    def pointer(self, name: str, networks: Sequence[str]) -> str | None:
        """The name that the PTR name *name* leads to on *networks*, as NAME.NETWORK; None if none has it."""
        for network in networks:
            if hit := self._pointers(network).get(name):
                return f"{hit}.{network}"
        return None

    def answer(
        self,
        packet: bytes,
        question: message.Question,
        networks: Sequence[str],
        *,
        ttl: int,
        tcp: bool,
        links: Mapping[str, str] = {},
    ) -> bytes | None:
        """The answer where *networks* have the name, else None. A name without addresses of the family that the client asks for
        gets an empty NOERROR, and is never forwarded."""
        if question.kind == message.PTR:
            pointer = self.pointer(question.name, networks)
            if pointer is None:
                return None
            try:
                name = message.encode_name(pointer)
            except ValueError:  # the name of a network can be too long for DNS
                return message.answer(packet, question, [], code=message.NXDOMAIN, tcp=tcp)
            return message.answer(packet, question, [(message.PTR, name)], ttl=ttl, tcp=tcp)
        known = self.addresses(links.get(question.name, question.name), networks)
        if known is None:
            return None
        records = [record for record in map(message.address_record, known) if question.kind in (record[0], 255)]
        return message.answer(packet, question, records, ttl=ttl, tcp=tcp)
