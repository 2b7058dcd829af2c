"""One nftables table for each node, rendered from desired state and changed in one transaction.

Never iptables, and never the rules of others. `chains` has the rules, `load_balancing` the maps of services.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from itertools import compress
from operator import is_not
from typing import Any

import msgspec

from netplugins import chains, guard, load_balancing, nft_elements
from netplugins.driver import FirewallPolicy, LoadBalancer, Nodes, PortMapping
from netplugins.errors import NetworkError
from netplugins.linux import netlink, netns
from netplugins.nft_elements import ElementType
from netplugins.script import Parts, Script

MAX_NETLINK_ELEMENTS = 2000
"""Elements that one transaction changes over netlink. More do not fit a socket's buffer; for those the start of nft(8) is
negligible."""


class ElementChange(msgspec.Struct, frozen=True):
    """The elements that are deleted from map or set *name* (*out*), and then added to it (*into*)."""

    name: str
    out: frozenset[str]
    into: frozenset[str]


class Ruleset(msgspec.Struct, frozen=True):
    """A table in two parts: *skeleton*, its text with `@@NAME@@` where the elements of each map and set go, and those
    *elements*, whose types are *shapes*. While the skeleton stays, a change costs what changed: elements come in parts, one a
    service, which are the very same objects as before where nothing changed."""

    table: str
    skeleton: str
    elements: dict[str, Parts]
    shapes: dict[str, ElementType]

    def whole(self, revision: int) -> str:
        """The nft script that replaces the table as a whole; *revision* goes into its comment."""
        out = self.skeleton.replace("@@REVISION@@", str(revision))
        for name, parts in self.elements.items():
            items = frozenset().union(*parts)
            out = out.replace(f"@@{name}@@", f" elements = {{ {', '.join(sorted(items))} }};" if items else "")
        return out

    def changes(self, before: Ruleset) -> list[ElementChange] | None:
        """What changes *before* into this ruleset; None if the whole table must be loaded."""
        if before.skeleton != self.skeleton:
            return None
        out = []
        for name, parts in self.elements.items():
            if (was := before.elements[name]) is not parts:
                old, items = _differing(was, parts)
                if old != items:
                    out.append(ElementChange(name, old - items, items - old))
        return out

    def amend(self, changes: Sequence[ElementChange], sock: netlink.Socket) -> None:
        """Apply *changes*, not empty and from `changes`, to the kernel in one transaction. *sock* is a socket of
        NETLINK_NETFILTER. Raises NetworkError; the kernel then changes nothing."""
        if sum(len(c.out) + len(c.into) for c in changes) > MAX_NETLINK_ELEMENTS:
            return apply(
                "".join(
                    f"{verb} element {self.shapes[c.name].family} {self.table} {c.name} {{ {', '.join(sorted(some))} }}\n"
                    for c in changes
                    for verb, some in (("delete", c.out), ("add", c.into))
                    if some
                )
            )
        messages = [m for c in changes for m in nft_elements.delete(self.table, c.name, self.shapes[c.name], sorted(c.out))]
        messages += [m for c in changes for m in nft_elements.add(self.table, c.name, self.shapes[c.name], sorted(c.into))]
        sock.transact(messages)


def _differing(before: Parts, now: Parts) -> tuple[frozenset[str], frozenset[str]]:
    """The elements of those parts that are not in both: of *before*, and of *now*."""
    if len(before) == len(now):  # nearly always: one service changed, in its place
        others = tuple(map(is_not, before, now))
        before, now = tuple(compress(before, others)), tuple(compress(now, others))
    ours, theirs = set(map(id, now)), set(map(id, before))
    return (
        frozenset().union(*(p for p in before if id(p) not in ours)),
        frozenset().union(*(p for p in now if id(p) not in theirs)),
    )


def render(
    table: str,
    networks: Sequence[FirewallPolicy],
    published: Sequence[PortMapping],
    balanced: Sequence[LoadBalancer] = (),
    local: Sequence[str] = (),
    nodes: Nodes = Nodes(),
) -> Ruleset:
    """Table inet *table* for the given state, and table bridge *table* where the kernel can have it. *local* are the addresses
    of this node's own endpoints on networks with several nodes."""
    script = Script()
    script.lines += [f"table inet {table}", f"delete table inet {table}", f"table inet {table} {{"]
    script.lines.append('  comment "pystack revision @@REVISION@@";')
    mapped = chains.declare_published(script, published)
    services, ports = load_balancing.declare(script, balanced)
    chains.declare_local(script, local)
    chains.add_destination_nat(script, services, [*mapped, *ports])
    chains.add_source_nat(script, networks)
    for network in networks:
        chains.add_network(script, network)
    if networks:
        chains.add_node_access(script, published, balanced, nodes)
    chains.add_forward(script, networks, nodes)
    if networks:
        chains.add_input(script, networks, nodes)
    script.lines += ["}", ""]
    if guard.possible():
        guard.render(script, table, networks)
    return Ruleset(table, "\n".join(script.lines), script.elements, script.shapes)


def apply(script: str) -> None:
    """Load *script* in one transaction. Raises NetworkError; the kernel then changes nothing."""
    done = subprocess.run(["nft", "-f", "-"], input=script, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise NetworkError(f"nftables refused the ruleset: {done.stderr.strip().splitlines()[0]}")


def differences(wanted: Ruleset) -> list[str]:
    """A sentence for each chain, map and set in which the kernel's table differs from *wanted*.

    nft does not print a table as it was written. So *wanted* is loaded into a namespace of its own, and both tables are
    listed by nft."""
    is_there = _listed(wanted.table)
    if is_there is None:
        return [f"table inet {wanted.table} does not exist"]

    def expected() -> dict[str, str] | None:
        apply(wanted.whole(0))
        return _listed(wanted.table)

    should = netns.isolated(expected) or {}
    return [
        f"{name} {'is missing' if name not in is_there else 'is not ours' if name not in should else 'differs'}"
        for name in sorted(should.keys() | is_there.keys())
        if should.get(name) != is_there.get(name)
    ]


def _listed(table: str) -> dict[str, str] | None:
    """Each chain, map and set of *table* → its rules or elements; None if there is no such table."""
    command = ["nft", "-j", "list", "table", "inet", table]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        return None
    listed = json.loads(done.stdout)["nftables"]
    command[command.index("inet")] = "bridge"
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    listed += json.loads(done.stdout)["nftables"] if done.returncode == 0 else []  # there is one where senders are guarded
    out: dict[str, list[str]] = {}
    for entry in listed:
        for kind, body in entry.items():
            where = "bridge " if body.get("family") == "bridge" else ""
            if kind in ("chain", "map", "set"):
                elements = sorted(_plain(e) for e in body.pop("elem", ()))
                out[f"{where}{kind} {body['name']}"] = [_plain(body), *elements]
            elif kind == "rule":
                out.setdefault(f"{where}chain {body['chain']}", []).append(_plain(body))
    return {name: "\n".join(lines) for name, lines in out.items()}


def _plain(item: Any) -> str:
    """*item* as text, without the handles and the order of hashed sets, which differ from load to load."""

    def strip(part: Any) -> Any:
        if isinstance(part, dict):
            return {
                k: sorted(map(_plain, v)) if k == "set" and isinstance(v, list) else strip(v)
                for k, v in part.items()
                if k != "handle"
            }
        return [strip(p) for p in part] if isinstance(part, list) else part

    return json.dumps(strip(item), sort_keys=True)


def delete(table: str) -> None:
    """Delete *table* of both families; it need not exist. Raises NetworkError."""
    families = ("inet", "bridge") if guard.possible() else ("inet",)
    apply("".join(f"table {family} {table}\ndelete table {family} {table}\n" for family in families))
