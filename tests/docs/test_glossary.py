"""The words of the code are those of docs/glossary.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs/glossary.md").read_text()
TERMS, REFUSED = GLOSSARY.split("## Words that are not used")
ROOMS = ("orchestrator", "agent", "netplugins", "bench", "tools", "packaging")
SOURCES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
ENGLISH = {"told", "said", "says", "hear", "hears", "heard", "whom", "whoever", "whose", "anew", "shall"}
"""Of programs, by docs/style.md."""
KEPT = {"--courier", "/pystack/heard/", "/pystack/heard/{number:[0-9]{1,18}}"}
"""What older versions call."""
WORDS = {
    word.strip()
    for row in REFUSED.splitlines()
    if row.startswith("| ") and not row.startswith("| not ")
    for word in row.split("|")[1].split(",")
}


def names_of(path: Path) -> Iterator[tuple[str, int]]:
    """Every name that *path* defines, with its line; the module's own first. Routes are names too."""
    yield path.stem, 1
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"/(?:v1|pystack)/[\w{}:.+/-]+|--[\w-]+", node.value)
        ):
            yield node.value, node.lineno


def words_of(name: str) -> set[str]:
    """The words of an identifier: `_HostProbe.read_events` has host, probe, read and events."""
    return {w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_words_of_a_name() -> None:
    assert words_of("_EtcdManifestWatcher") == {"etcd", "manifest", "watcher"}
    assert words_of("/pystack/manifest-source") == {"pystack", "manifest", "source"}
    assert words_of("FENCE_PREFIX") == {"fence", "prefix"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_name_has_a_word_that_was_given_up(path: Path) -> None:
    assert len(WORDS) > 20
    refused = WORDS | ENGLISH
    if not re.search("|".join(refused), path.read_text(), re.IGNORECASE):
        return  # to read its text is faster than to parse it
    found = [f"{path.name}:{line} {name}" for name, line in names_of(path) if words_of(name) & refused and name not in KEPT]
    assert found == []


def test_each_term_names_what_is_there() -> None:
    classes = {name for path in SOURCES for name in re.findall(r"(?m)^ *(?:async )?(?:class|def) (\w+)", path.read_text())}
    named = {
        name
        for row in TERMS.splitlines()
        if row.startswith("| ")
        for name in re.findall(r"`([A-Z][A-Za-z]+|[a-z]+_[a-z_]+)`", row.split("|")[3])
    }
    assert len(named) > 30
    assert named - classes == set()
