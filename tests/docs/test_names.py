"""What the documents name is there: links, files and rooms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
NAMED = re.compile(r"`((?:orchestrator|agent|netplugins|tests|bench|docs|examples|tools|vagrant)/[\w./-]*)`")
SHORT = re.compile(r"[\w/]+\.py")
ROOMS = (
    "orchestrator/ingress",
    "",
    "orchestrator",
    "agent",
    "netplugins",
    "agent/engine",
    "netplugins/dataplane",
    "orchestrator/server",
    "orchestrator/transport",
    "orchestrator/gitops",
    "agent/volumes",
)
"""Where a name in docs/architecture.md may begin."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_files_are_there(document: Path) -> None:
    text = document.read_text()
    gone = [n for n in LINK.findall(text) if not (document.parent / n).exists()]
    gone += [n for n in NAMED.findall(text) if not (ROOT / n).exists()]
    assert gone == []


def test_each_module_that_the_architecture_names_is_there() -> None:
    names = set(SHORT.findall((ROOT / "docs/architecture.md").read_text()))
    assert len(names) > 30
    assert [n for n in sorted(names) if not any((ROOT / room / n).exists() for room in ROOMS)] == []


def test_each_decision_has_its_number_and_a_row_in_the_index() -> None:
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text()
    paths = sorted(folder.glob("0*.md"))
    for path in paths:
        number, title = path.name[:4], path.read_text().splitlines()[0]
        assert title.startswith(f"# {number}: ")
        assert f"| [{number}]({path.name}) | {title[8:]} |" in index
    assert len({path.name[:4] for path in paths}) == len(paths), "two that are written side by side have different numbers"
