"""The parts of the page that need no browser."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ui.api import POLICY, STATIC, files
from orchestrator.ui.board import difference, visible
from orchestrator.ui.streams import LINE_MAX, Lines

OWN = [p for p in STATIC.rglob("*") if "vendor" not in p.parts and p.suffix in (".js", ".html", ".css")]
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|srcdoc|createContextualFragment"
)


def frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.text(alphabet="abé ", max_size=20))), st.integers(1, 40))
def test_lines_are_the_same_however_the_bytes_come(lines: list[tuple[int, str]], size: int) -> None:
    data = b"".join(frame(stream, line.encode() + b"\n") for stream, line in lines)
    reader = Lines(raw=False)
    found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
    assert found == lines


def test_a_line_without_end_keeps_no_memory() -> None:
    reader = Lines(raw=True)
    for _ in range(100):
        assert list(reader.feed(b"x" * LINE_MAX)) == []
    assert [len(line) for _, line in reader.feed(b"\nshort\n")] == [LINE_MAX, 5]


def test_a_page_hears_what_differs() -> None:
    one, two = {"stack": "a", "n": 1}, {"stack": "b"}
    before = {"tasks": {"t": one, "u": two}}
    assert difference(before, {"tasks": {"t": dict(one), "u": two}}) == {}
    assert difference(before, {"tasks": {"t": {**one, "n": 2}}}) == {
        "put": {"tasks": {"t": {"stack": "a", "n": 2}}},
        "gone": {"tasks": ["u"]},
    }
    mine = visible({**before, "nodes": {"n1": {"name": "n1"}}}, lambda stack: stack == "a")
    assert mine == {"tasks": {"t": one}, "nodes": {"n1": {"name": "n1"}}}


def test_the_pages_own_files_make_no_markup_of_text() -> None:
    assert len(OWN) > 10
    assert {p.name: found[0] for p in OWN if (found := MARKUP.search(p.read_text()))} == {}
    html = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|\bstyle=|\son\w+=", html) == []
    assert "unsafe" not in POLICY


def test_each_file_that_another_names_is_sent() -> None:
    there = files()
    named = [
        (name, str(PurePosixPath(name).parent / target))
        for name, body in there.items()
        if "vendor" not in name
        for target in re.findall(r"""(?:from|import\()\s*"(\.[^"]+)"|(?:href|src)[=:]\s*"([\w/.]+\.\w+)\"""", body.decode())
        for target in target
        if target
    ]
    assert len(named) > 20

    def plain(path: str) -> str:
        parts: list[str] = []
        for part in path.split("/"):
            if part == "..":
                parts.pop()
            elif part != ".":
                parts.append(part)
        return "/".join(parts)

    assert [(name, target) for name, target in named if plain(target) not in there] == []
    assert "vendor/LICENSE.xterm" not in there  # it is in the package, and no page needs it
    assert (STATIC / "vendor/LICENSE.xterm").is_file()
