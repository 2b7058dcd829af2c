"""Classes, functions and parameter lists stay within the bounds of docs/style.md, or are named here with the reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ROOMS = ("orchestrator", "agent", "netplugins", "bench", "examples", "tools", "tests")
CLASS_LINES, FUNCTION_LINES, PARAMETERS = 300, 60, 7
TABLE = "a list of calls to compare, one after the other"
EXCEPTIONS = {
    "orchestrator/cli/compose/verbs.py run": "13 parameters: one an option, as those of a command",
    "tests/beside/containers.py lists": TABLE,
    "tests/beside/containers.py starts_and_ends": TABLE,
    "tests/beside/containers.py archives": TABLE,
    "tests/beside/execs.py executed": TABLE,
    "tests/beside/images.py committed": TABLE,
    "tests/beside/networks.py connected": TABLE,
    "tests/beside/system.py events": TABLE,
    "tests/kernel/test_rootless.py ada": "a fixture that sets up and takes away a user, in the order of both",
    "tests/vm/cluster.py tried": "one scenario, in the order in which it happens",
}


class Size(NamedTuple):
    """*name* is that of a class or function, *what* says what of it is too large."""

    name: str
    what: str


def is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether click calls it: its parameters are the options of the command, each declared above it."""
    calls = (d.func for d in node.decorator_list if isinstance(d, ast.Call))
    return any(isinstance(f, ast.Attribute) and f.attr in ("command", "group") for f in calls)


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many it takes, `self` and `cls` left out."""
    found = node.args
    names = [one.arg for one in (*found.posonlyargs, *found.args)]
    given = len(names) - (names[:1] in (["self"], ["cls"]))
    return given + len(found.kwonlyargs) + bool(found.vararg) + bool(found.kwarg)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements in *node*, at any depth; `ast.walk` would go through their expressions too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from statements(child)


def too_large(source: str) -> Iterator[Size]:
    """What of the module *source* is beyond the bounds."""
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > (CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES):
                yield Size(node.name, f"{lines} lines")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_command(node):
            count = parameters(node)
            if count > PARAMETERS:
                yield Size(node.name, f"{count} parameters")


def test_what_is_too_large() -> None:
    names = "abcdefgh"
    lines = [
        "class A:",
        f"    def seven(self, {', '.join(names[:7])}): pass",
        f"    def eight(self, {', '.join(names)}): pass",
        "@click.command()",
        f"def command({', '.join(names)}): pass",
        "def long():",
        *["    pass"] * 60,
        "class B:",
        *["    a = 1"] * 300,
    ]
    found = [("long", "61 lines"), ("B", "301 lines"), ("eight", "8 parameters")]
    assert sorted(too_large("\n".join(lines))) == sorted(found)


def test_nothing_is_too_large_but_what_is_named() -> None:
    found = {
        f"{path.relative_to(ROOT)} {size.name}": size.what
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        for size in too_large(path.read_text())
    }
    assert {name: what for name, what in found.items() if name not in EXCEPTIONS} == {}, "split it"
    assert EXCEPTIONS.keys() - found.keys() == set(), "it has shrunk: take it from the list"
