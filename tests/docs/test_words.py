"""Help texts and messages are in plain technical English: the words of docs/style.md that it leaves out are not in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator.cli import cli

ROOT = Path(__file__).parents[2]
PACKAGES = ("orchestrator", "agent", "netplugins")
WORDS = re.compile(
    r"\b(told|hears?|heard|whom|whoever|whatever|whosoever|anew|shall|thereof|therein|whence|hither|thither|nought|lest|unto"
    r"|said nothing|(?:if|where nothing is|not) said|(?<!there )(?:is|are) no (?!longer|more|further|newer|good\b)[a-z]+)\b",
    re.IGNORECASE,
)


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The strings of a module but for documentation: those that are statements by themselves."""
    loose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in loose and " " in node.value:
            yield node.lineno, node.value


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
        for line, text in texts(ast.parse(path.read_text()))
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
