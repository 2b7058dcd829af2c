"""`pystack graph`: nothing of the file is missing, and what it writes is what readers of the language take."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from orchestrator.cli.drawing import drawing_of, svg
from orchestrator.stackfile.load import Options, load

STACK = """
name: shop
services:
  web:
    image: "nginx<1>"
    ports: ["8080:80", "8443:443"]
    depends_on: {db: {condition: service_healthy}}
    networks: [front, back]
    deploy: {replicas: 3}
  db:
    image: postgres
    networks: [back]
    volumes: ["data:/var/lib/data"]
    healthcheck: {test: "true"}
  probe: {image: busybox, network_mode: none, deploy: {mode: global}}
networks: {front: {}, back: {}}
volumes: {data: {}}
"""
NAMES = {"web ×3", "nginx<1>", "db", "postgres", "probe on every node", "8080/tcp", "8443/tcp"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stack.yml"
    path.write_text(STACK)
    return path


def graph(file: Path, *words: str) -> str:
    command = [sys.executable, "-m", "orchestrator", "-f", str(file), "graph", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_svg_has_all_that_the_file_has_and_nothing_lies_on_anything(file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "stack.svg"
    graph(file, "-o", str(picture))
    root = ET.fromstring(picture.read_text())
    space = {"s": "http://www.w3.org/2000/svg"}
    assert {text.text for text in root.iterfind(".//s:text", space)} >= NAMES | {
        "shop_data",
        "shop_front",
        "shop_back",
        "healthy",
    }
    boxes = [
        tuple(float(box.attrib[key]) for key in ("x", "y", "width", "height")) for box in root.iterfind(".//s:g/s:rect", space)
    ]
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for number, (x, y, w, h) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        for x2, y2, w2, h2 in boxes[number + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_mermaid_names_each_thing_once_and_binds_what_there_is(file: Path) -> None:
    lines = graph(file).splitlines()
    assert lines[0] == "flowchart LR"
    things = {line.split()[0].split("[")[0].split("(")[0] for line in lines[1:] if ":::" in line}
    assert len(things) == len([line for line in lines if ":::" in line]) == 8
    ends = [(line.split()[0], line.split()[-1]) for line in lines if "-->" in line or "-.->" in line]
    assert {end for pair in ends for end in pair} <= things
    assert "nginx&lt;1&gt;" in "\n".join(lines)


def test_dot_is_what_graphviz_takes(file: Path) -> None:
    text = graph(file, "--format", "dot")
    assert text.count(" -> ") == 7
    if not shutil.which("dot"):
        pytest.skip("graphviz is not installed")
    subprocess.run(["dot", "-Tsvg", "-o", "/dev/null"], input=text, text=True, check=True)


def test_nodes_are_drawn_where_tasks_are(file: Path) -> None:
    stack = load(Options(files=(str(file),)), {}).stack
    drawing = drawing_of(stack, {"web": ["n1", "n2"], "db": ["n1"]})
    assert [item.name for item in drawing.items if item.kind == "node"] == ["n1", "n2"]
    assert sum(edge.target[0] == "node" for edge in drawing.edges) == 3
    ET.fromstring("\n".join(svg(drawing)))


def test_an_empty_drawing_is_one_too(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text("name: a\nservices: {a: {image: x, network_mode: none}}\n")
    ET.fromstring(graph(tmp_path / "stack.yml", "--format", "svg"))
