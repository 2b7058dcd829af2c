"""A stack as a drawing: what it is made of (`Drawing`), and that in the words of Mermaid and DOT, or drawn as SVG.

Source: mermaid.js.org, "Flowcharts"; graphviz.org, "DOT Language"; W3C, SVG 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Literal, NamedTuple

from orchestrator.stackfile.model import Stack

Kind = Literal["service", "network", "volume", "port", "node"]
SHAPES: dict[Kind, tuple[str, str]] = {
    "service": ("[", "]"),
    "network": ("([", "])"),
    "volume": ("[(", ")]"),
    "port": ("((", "))"),
    "node": ("[[", "]]"),
}
DOTS: dict[Kind, str] = {"service": "box", "network": "oval", "volume": "cylinder", "port": "circle", "node": "box3d"}
COLOURS: dict[Kind, str] = {
    "service": "#dbeafe",
    "network": "#dcfce7",
    "volume": "#fef3c7",
    "port": "#fee2e2",
    "node": "#e5e7eb",
}
CONDITIONS = {"service_started": "", "service_healthy": "healthy", "service_completed_successfully": "done"}


class Item(NamedTuple):
    """One thing; *label* may have several lines."""

    kind: Kind
    name: str
    label: str


class Edge(NamedTuple):
    """From *source* to *target*, (kind, name) each."""

    source: tuple[Kind, str]
    target: tuple[Kind, str]
    label: str = ""
    dashed: bool = False


class Drawing(NamedTuple):
    """All things of a stack and what binds them."""

    title: str
    items: Sequence[Item]
    edges: Sequence[Edge]


def drawing_of(stack: Stack, nodes: Mapping[str, Sequence[str]]) -> Drawing:
    """*nodes*: the names of the nodes where each service has tasks; empty where nothing runs yet."""
    items: list[Item] = []
    edges: list[Edge] = []
    seen: set[tuple[Kind, str]] = set()

    def have(kind: Kind, name: str, label: str = "") -> tuple[Kind, str]:
        if (kind, name) not in seen:
            seen.add((kind, name))
            items.append(Item(kind, name, label or name))
        return kind, name

    for service in stack.services:
        count = (
            "on every node" if service.mode.startswith("global") else f"×{service.replicas}" if service.replicas != 1 else ""
        )
        label = "\n".join(filter(None, (f"{service.name} {count}".strip(), service.container.image)))
        own = have("service", service.name, label)
        for port in service.container.ports:
            name = f"{port.published or '?'}/{port.protocol}"
            edges.append(Edge(have("port", name), own, str(port.target)))
        for dependency in service.depends_on:
            if not dependency.implied:
                target: tuple[Kind, str] = ("service", dependency.service)
                edges.append(Edge(own, target, CONDITIONS.get(dependency.condition, dependency.condition)))
        edges += [Edge(own, have("network", a.network), dashed=True) for a in service.container.attachments]
        volumes = (m for m in service.container.mounts if m.kind == "volume" and m.source)
        edges += [Edge(own, have("volume", mount.source), mount.target) for mount in volumes]
        edges += [Edge(own, have("node", node), dashed=True) for node in nodes.get(service.name, ())]
    return Drawing(stack.name, items, edges)


def mermaid(drawing: Drawing) -> Iterator[str]:
    """The lines of a flowchart."""
    ids = {(item.kind, item.name): f"n{number}" for number, item in enumerate(drawing.items)}
    yield "flowchart LR"
    for item in drawing.items:
        before, behind = SHAPES[item.kind]
        label = escape(item.label, quote=True).replace("\n", "<br>")
        yield f'  {ids[item.kind, item.name]}{before}"{label}"{behind}:::{item.kind}'
    for edge in drawing.edges:
        label = f'|"{escape(edge.label, quote=True)}"|' if edge.label else ""
        yield f"  {ids[edge.source]} {'-.->' if edge.dashed else '-->'}{label} {ids[edge.target]}"
    for kind in dict.fromkeys(item.kind for item in drawing.items):
        yield f"  classDef {kind} fill:{COLOURS[kind]},stroke:#334155,color:#0f172a"


def dot(drawing: Drawing) -> Iterator[str]:
    """The lines of a directed graph."""
    ids = {(item.kind, item.name): f"n{number}" for number, item in enumerate(drawing.items)}
    yield f"digraph {quoted(drawing.title)} {{"
    yield "  rankdir=LR; node [style=filled, fontname=sans];"
    for item in drawing.items:
        colour = COLOURS[item.kind]
        yield f'  {ids[item.kind, item.name]} [shape={DOTS[item.kind]}, fillcolor="{colour}", label={quoted(item.label)}];'
    for edge in drawing.edges:
        style = ", style=dashed" if edge.dashed else ""
        yield f"  {ids[edge.source]} -> {ids[edge.target]} [label={quoted(edge.label)}{style}];"
    yield "}"


def quoted(text: str) -> str:
    """*text* as an ID of DOT."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text).replace("\n", "\\n") + '"'


ROW, COLUMN, HEIGHT, CHARACTER, MARGIN = 84, 70, 44, 7.4, 24


def svg(drawing: Drawing) -> Iterator[str]:
    """A picture of columns: ports, services by the depth of what they depend on, networks, volumes and nodes."""
    columns = _columns(drawing)
    width = {(i.kind, i.name): 24 + CHARACTER * max(map(len, i.label.split("\n"))) for i in drawing.items}
    places: dict[tuple[Kind, str], tuple[float, float]] = {}
    x, tallest = float(MARGIN), max((len(column) for column in columns), default=0)
    for column in columns:
        widest = max(width[i.kind, i.name] for i in column)
        for row, item in enumerate(column):
            places[item.kind, item.name] = x + widest / 2, MARGIN + 30 + ROW * (row + (tallest - len(column)) / 2) + HEIGHT / 2
        x += widest + COLUMN
    height = MARGIN * 2 + 30 + ROW * tallest
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x:.0f} {height:.0f}" font-family="sans-serif" font-size="13">'
    yield '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    yield '<path d="M0 0L8 4L0 8z" fill="#64748b"/></marker></defs>'
    yield '<rect width="100%" height="100%" fill="#ffffff"/>'
    yield f'<text x="{MARGIN}" y="{MARGIN}" font-weight="bold">{escape(drawing.title)}</text>'
    for edge in drawing.edges:
        yield from _line(edge, places[edge.source], places[edge.target], width)
    for item in drawing.items:
        yield from _box(item, places[item.kind, item.name], width[item.kind, item.name])
    yield "</svg>"


def _columns(drawing: Drawing) -> list[list[Item]]:
    """Ports first, then services with those in front that others are needed by, then the rest by kind."""
    needs = {
        item.name: [e.target[1] for e in drawing.edges if e.source == ("service", item.name) and e.target[0] == "service"]
        for item in drawing.items
        if item.kind == "service"
    }
    depth = dict.fromkeys(needs, 0)
    for _ in needs:  # a file has no circles; one in a drawing would end here
        for name, targets in needs.items():
            for target in targets:
                depth[target] = max(depth.get(target, 0), depth[name] + 1)
    out = [[i for i in drawing.items if i.kind == "port"]]
    out += [[i for i in drawing.items if i.kind == "service" and depth[i.name] == d] for d in sorted(set(depth.values()))]
    out += [[i for i in drawing.items if i.kind == kind] for kind in ("network", "volume", "node")]
    return [column for column in out if column]


def _line(
    edge: Edge, start: tuple[float, float], end: tuple[float, float], width: dict[tuple[Kind, str], float]
) -> Iterator[str]:
    way = 1 if end[0] >= start[0] else -1
    x1, x2 = start[0] + way * width[edge.source] / 2, end[0] - way * width[edge.target] / 2
    middle, style = (x1 + x2) / 2, ' stroke-dasharray="4 4"' if edge.dashed else ' marker-end="url(#end)"'
    curve = f"M{x1:.0f} {start[1]:.0f}C{middle:.0f} {start[1]:.0f} {middle:.0f} {end[1]:.0f} {x2:.0f} {end[1]:.0f}"
    yield f'<path d="{curve}" fill="none" stroke="#64748b"{style}/>'
    if edge.label:
        y = (start[1] + end[1]) / 2 - 4
        way_of_text = f'x="{middle:.0f}" y="{y:.0f}" font-size="11" fill="#475569" text-anchor="middle"'
        yield f"<text {way_of_text}>{escape(edge.label)}</text>"


def _box(item: Item, place: tuple[float, float], width: float) -> Iterator[str]:
    radius = {"service": 4, "network": HEIGHT / 2, "volume": 12, "port": HEIGHT / 2, "node": 0}[item.kind]
    x, y = place[0] - width / 2, place[1] - HEIGHT / 2
    shape = f'width="{width:.0f}" height="{HEIGHT}" rx="{radius:.0f}" fill="{COLOURS[item.kind]}" stroke="#334155"'
    yield f'<g class="{item.kind}"><rect x="{x:.0f}" y="{y:.0f}" {shape}/>'
    lines = item.label.split("\n")
    for number, line in enumerate(lines):
        below = place[1] + 4.5 + 16 * (number - (len(lines) - 1) / 2)
        yield f'<text x="{place[0]:.0f}" y="{below:.0f}" text-anchor="middle">{escape(line)}</text>'
    yield "</g>"


WRITERS = {"svg": svg, "dot": dot, "mermaid": mermaid}
