"""The text of an nftables table, and beside it the elements of its maps and sets."""

from __future__ import annotations

from collections.abc import Iterable

from netplugins.nft_elements import ElementType

Parts = tuple[frozenset[str], ...]
"""Elements of one map or set, a part for each thing that they stand for, as a service."""


class Script:
    """The *lines* of a table with `@@NAME@@` where the elements of map or set NAME go, those *elements*, and their types
    (*shapes*)."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.elements: dict[str, Parts] = {}
        self.shapes: dict[str, ElementType] = {}

    def declare(self, kind: str, name: str, shape: ElementType, items: Iterable[str]) -> None:
        """Add the map or set (*kind*) *name* with the elements *items*."""
        type_ = " : ".join(" . ".join(part) for part in (shape.key, shape.value) if part)
        self.declare_parts(kind, name, f"type {type_}", shape, (frozenset(items),))

    def declare_parts(self, kind: str, name: str, type_: str, shape: ElementType, parts: Parts) -> None:
        """Add the map or set (*kind*) *name*, with its type as nft writes it (*type_*), and its elements in *parts*."""
        self.lines.append(f"  {kind} {name} {{ {type_};@@{name}@@ }}")
        self.elements[name], self.shapes[name] = parts, shape

    def chain(self, name: str, rules: Iterable[str]) -> None:
        """Add the chain *name* with *rules*, one a line."""
        self.lines += [f"  chain {name} {{", *(f"    {rule}" for rule in rules), "  }"]
