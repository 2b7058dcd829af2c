"""`$NAME`, `${NAME}` and their operators. Source: Compose Specification, 12-interpolation.md.

${V:-d} ${V-d} default; ${V:?e} ${V?e} required; ${V:+r} ${V+r} replacement; $$ a dollar sign; nesting inside braces. A $ before
anything else is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import msgspec

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class InvalidError(Exception):
    """The text is malformed, or a required variable is missing."""


def substitute(text: str, variables: Mapping[str, str], unset: Callable[[str], None] = lambda _: None) -> str:
    """*text* with its variables put in. *unset* is called with each plain variable that has no value. Raises InvalidError."""
    out, at = _until(text, 0, "", variables, unset)
    assert at == len(text)
    return out


def _until(
    text: str,
    at: int,
    end: str,
    variables: Mapping[str, str],
    unset: Callable[[str], None],
    depth: int = 0,
    *,
    needed: bool = True,
) -> tuple[str, int]:
    """Expand from *at* to the closing *end* brace, or to the end of the text. Returns what came out, and where. What is not
    *needed*, a default that stands for nothing, may name what is missing."""
    if depth > 20:
        raise InvalidError("variables are nested more than 20 deep")
    out: list[str] = []
    while at < len(text):
        char = text[at]
        if end and char == end:
            return "".join(out), at
        if char != "$":
            out.append(char)
            at += 1
            continue
        if text.startswith("$$", at):
            out.append("$")
            at += 2
        elif text.startswith("${", at):
            value, at = _braced(text, at + 2, variables, unset, depth, needed=needed)
            out.append(value)
        elif match := _NAME.match(text, at + 1):
            if match[0] not in variables:
                unset(match[0])
            out.append(variables.get(match[0], ""))
            at = match.end()
        else:  # no name can begin so: it stands for itself, as in `$(date)`
            out.append("$")
            at += 1
    if end:
        raise InvalidError("${ without its closing }")
    return "".join(out), at


def _braced(
    text: str, at: int, variables: Mapping[str, str], unset: Callable[[str], None], depth: int, *, needed: bool
) -> tuple[str, int]:
    match = _NAME.match(text, at)
    if not match:
        raise InvalidError(f"${{{text[at : at + 10]} names no variable")
    name, at = match[0], match.end()
    value = variables.get(name)
    if text.startswith("}", at):
        if value is None:
            unset(name)
        return value or "", at + 1
    operator = next((op for op in (":-", ":?", ":+", "-", "?", "+") if text.startswith(op, at)), "")
    if not operator:
        raise InvalidError(f"${{{name}{text[at : at + 5]}: an operator is one of :- - :? ? :+ +")
    present = value is not None and (value != "" or ":" not in operator)
    wanted = needed and present == (operator[-1] == "+")
    word, at = _until(text, at + len(operator), "}", variables, lambda _: None, depth + 1, needed=wanted)
    if operator[-1] == "-":
        return (value or "") if present else word, at + 1
    if operator[-1] == "+":
        return word if present else "", at + 1
    if not present and needed:
        raise InvalidError(f"required variable {name} is missing a value: {word or 'it is not set'}")
    return value or "", at + 1


class NamedVariable(msgspec.Struct, frozen=True, kw_only=True):
    """A variable that a text names, and what stands there where it has no value, or where it has one (*alternate*)."""

    name: str
    required: bool = False
    default: str = ""
    alternate: str = ""


_NAMED = re.compile(r"\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)(?P<op>:?[-?+])?)")


def named(text: str) -> Iterator[NamedVariable]:
    """The variables of *text*, in order; those within a default too."""
    for match in _NAMED.finditer(text):
        if match["dollar"]:
            continue
        name, operator = match["plain"] or match["braced"], (match["op"] or "")[-1:]
        word = ""
        if operator:
            depth, at = 1, match.end()
            while at < len(text) and depth:
                depth += (text[at] == "{") - (text[at] == "}")
                at += 1
            word = text[match.end() : at - 1]
        yield NamedVariable(
            name=name,
            required=operator == "?",
            default=word if operator == "-" else "",
            alternate=word if operator == "+" else "",
        )
