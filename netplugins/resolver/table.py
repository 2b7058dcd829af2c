"""Who is called what: the names that one container can see, compiled from the state document.

A container sees the names of the networks that it is on: service and container names, aliases, `tasks.NAME`, and each
of them as NAME.NETWORK. Source: Docker's embedded DNS server, as described in its documentation and observed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec

from netplugins.resolver import message


class View(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One container's DNS: its namespace, its networks, where other names are asked for, and the names
    that are its own alone (*links*: name → whose)."""

    netns: str
    networks: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    links: dict[str, str] = {}


class Forward(msgspec.Struct, kw_only=True, frozen=True):
    """A host port held by a bound socket: *host* and *port* on the host, relayed to one of *targets* for clients whom the
    firewall does not translate (loopback, and IPv6 clients of an IPv4 container)."""

    protocol: str
    host: str
    port: int
    targets: tuple[str, ...]
    target_port: int


class DataplaneState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that the data path process must know: *names* is network → name → addresses."""

    views: dict[str, View] = {}
    names: dict[str, dict[str, tuple[str, ...]]] = {}
    forwards: tuple[Forward, ...] = ()
    ttl: int = 0


class Names:
    """Answers questions for views over one document; made anew when the document changes."""

    def __init__(self, names: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """*names* are in lower case."""
        self._names = names
        self._reverse: dict[str, dict[str, str]] = {}

    def _pointers(self, network: str) -> dict[str, str]:
        """Names by address, made when the first asks: most never do, and all of it is made anew with each change."""
        if network not in self._reverse:
            known = self._reverse[network] = {}
            for name, addresses in self._names.get(network, {}).items():
                for address in addresses:
                    pointer = message.reverse_name(address)
                    # the longest name is the container's own; services and aliases are shared
                    if len(name) > len(known.get(pointer, "")) and not name.startswith("tasks."):
                        known[pointer] = name
        return self._reverse[network]

    def addresses(self, name: str, networks: Sequence[str]) -> tuple[str, ...] | None:
        """All addresses of *name* on *networks*; None where nobody is called so."""
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
        """The answer where the name is ours (an absent family is an empty NOERROR, never forwarded), else None."""
        if question.kind == message.PTR:
            pointer = self.pointer(question.name, networks)
            if pointer is None:
                return None
            try:
                name = message.encode_name(pointer)
            except ValueError:  # the name of a network can be longer than DNS has room for
                return message.answer(packet, question, [], code=message.NXDOMAIN, tcp=tcp)
            return message.answer(packet, question, [(message.PTR, name)], ttl=ttl, tcp=tcp)
        known = self.addresses(links.get(question.name, question.name), networks)
        if known is None:
            return None
        records = [record for record in map(message.address_record, known) if question.kind in (record[0], 255)]
        return message.answer(packet, question, records, ttl=ttl, tcp=tcp)
