"""Help texts, messages, docstrings and comments are in plain technical English, without the words that docs/style.md leaves
out; `test_glossary.py` holds them out of names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator.cli import cli

ROOT = Path(__file__).parents[2]
PACKAGES = ("orchestrator", "agent", "netplugins", "bench", "tools", "packaging")
WORDS = re.compile(
    r"\b(told|hears?|heard|whom|whoever|whatever|whosoever|anew|shall|thereof|therein|whence|hither|thither|nought|lest|unto"
    r"|said nothing|(?:if|where nothing is|not) said|(?<!there )(?:is|are) no (?!longer|more|further|newer|good\b)[a-z]+)\b",
    re.IGNORECASE,
)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The strings of a module that are sentences, docstrings included, and its comments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, " ".join(node.value.split())
    if not any("#" in line and WORDS.search(line) for line in source.splitlines()):
        return  # tokenize costs more than all the rest
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def helps(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """What a command, its options and its commands say of themselves."""
    yield name, command.help or ""
    for option in command.params:
        if isinstance(option, click.Option):
            yield f"{name} {option.name}", option.help or ""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for one in command.list_commands(context):
            found = command.get_command(context, one)
            assert found
            yield from helps(found, f"{name} {one}")


@pytest.mark.parametrize("package", PACKAGES)
def test_messages(package: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}: {match[0]}"
        for path in (ROOT / package).rglob("*.py")
        for line, text in texts(path.read_text())
        if (match := WORDS.search(text))
    }
    assert found == set(), "say it in the words of docs/style.md"


def test_help() -> None:
    found = {f"{name}: {match[0]}" for name, text in helps(cli, "pystack") if (match := WORDS.search(text))}
    assert found == set(), "say it in the words of docs/style.md"


@pytest.mark.parametrize("bad", ["x is no port", "What it is told.", "all if not said", "these are no files"])
def test_what_is_found(bad: str) -> None:
    assert WORDS.search(bad)


@pytest.mark.parametrize("good", ["there is no port", "it is no longer kept", "is not a port"])
def test_what_is_left(good: str) -> None:
    assert not WORDS.search(good)
