"""The text of an nftables table, and beside it the elements of its maps and sets."""

from __future__ import annotations

from collections.abc import Iterable

from netplugins.nft_elements import ElementType

Parts = tuple[frozenset[str], ...]


class Script:
    """Lines of a table, and the elements that are kept beside them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.elements: dict[str, Parts] = {}
        self.shapes: dict[str, ElementType] = {}

    def declare(self, kind: str, name: str, shape: ElementType, items: Iterable[str]) -> None:
        type_ = " : ".join(" . ".join(part) for part in (shape.key, shape.value) if part)
        self.declare_parts(kind, name, f"type {type_}", shape, (frozenset(items),))

    def declare_parts(self, kind: str, name: str, type_: str, shape: ElementType, parts: Parts) -> None:
        self.lines.append(f"  {kind} {name} {{ {type_};@@{name}@@ }}")
        self.elements[name], self.shapes[name] = parts, shape
