"""Templates in the language of Go's text/template, as far as Swarm's files use it.

Placeholders (`{{.Task.Slot}}`), functions (`{{index .Service.Labels "a"}}`, `{{secret "key" | printf "%s;"}}`), conditions
(`{{if eq .Node.Hostname "a"}}…{{else}}…{{end}}`), comments, and `{{-` and `-}}`, which take the blanks beside them away.
Source: the text/template package; Docker CLI reference, `docker service create`, "Create services using templates", and
`docker config create --template-driver`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Values = Mapping[str, Any]
"""By name: texts, or values again."""
Function = Callable[..., Any]

_TOKEN = re.compile(
    r'\s*(?:("(?:\\.|[^"\\])*"|`[^`]*`)|(\.(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)?)|(-?\d+)|([A-Za-z_]\w*)|([|()]))'
)
_BRACES = re.compile(r"\{\{[^{}]*")
_SWARM = re.compile(r"\.(?:Service|Node|Task)\b")
DEEPEST = 50
UNSUPPORTED = ("range", "with", "define", "template", "block", "break", "continue")
_VERB = re.compile(r"%[-+#0 ]*\d*(?:\.\d+)?([svdq%])")


class TemplateError(Exception):
    """A template is wrong; *line* counts from 1 in its text."""

    def __init__(self, what: str, line: int = 1) -> None:
        super().__init__(what)
        self.line = line


def names_swarm(text: str) -> bool:
    """Whether *text* has a placeholder of Swarm; other braces have another meaning, and stay."""
    return "{{" in text and any(_SWARM.search(braces) for braces in _BRACES.findall(text))


def identifier(*words: str) -> str:
    """25 letters and digits that stand for *words*, as Swarm's IDs look."""
    number = int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest())
    out = ""
    while len(out) < 25:
        number, rest = divmod(number, 36)
        out += "0123456789abcdefghijklmnopqrstuvwxyz"[rest]
    return out


def expand(text: str, values: Values, functions: Mapping[str, Function] = {}, *, every: bool = False) -> str:
    """*text* with its actions carried out. *every*: evaluate all branches, to find errors in any. Raises TemplateError."""
    run = _Run(list(_pieces(text)), values, {**BUILTINS, **functions}, every)
    out, at = _block(run, 0, live=True)
    if at < len(run.pieces):
        raise TemplateError(f"{{{{{run.pieces[at][1]}}}}} without its if", run.pieces[at][2])
    return out


Piece = tuple[bool, str, int]
"""Whether the piece is an action, its text, and its line."""


def _pieces(text: str) -> Iterator[Piece]:
    at, trim = 0, False
    while (start := text.find("{{", at)) >= 0:
        line = text.count("\n", 0, start) + 1
        before = text[at:start].lstrip() if trim else text[at:start]
        first = start + 2
        if text[first : first + 1] == "-" and text[first + 1 : first + 2].isspace():
            before, first = before.rstrip(), first + 1
        yield False, before, 0
        end = _end(text, first, line)
        body = text[first:end]
        trim = body[-1:] == "-" and body[-2:-1].isspace()
        body = (body[:-1] if trim else body).strip()
        if not body.startswith("/*"):
            yield True, body, line
        at = end + 2
    yield False, text[at:].lstrip() if trim else text[at:], 0


def _end(text: str, at: int, line: int) -> int:
    """Where the }} of the action stands that begins at *at*; quotes and comments may have others."""
    while at < len(text):
        if text.startswith("}}", at):
            return at
        quote = text[at]
        if text.startswith("/*", at):
            at = text.find("*/", at) + 1
        elif quote in ('"', "`"):
            at += 1
            while at < len(text) and text[at] != quote:
                at += 2 if quote == '"' and text[at] == "\\" else 1
        if at <= 0:
            break
        at += 1
    raise TemplateError("{{ without its }}", line)


class _Run(NamedTuple):
    """The values that the actions of a template can use. With *every*, all branches are evaluated, to find errors in any."""

    pieces: Sequence[Piece]
    values: Values
    functions: Mapping[str, Function]
    every: bool


def _block(run: _Run, at: int, *, live: bool, depth: int = 0) -> tuple[str, int]:
    """The text of the pieces from *at* to the end, an `else` or an `end`. If not *live*, they are skipped."""
    out: list[str] = []
    while at < len(run.pieces):
        is_action, body, line = run.pieces[at]
        word, _, rest = body.partition(" ")
        if not is_action:
            out.append(body if live else "")
        elif word in ("else", "end"):
            return "".join(out), at
        elif word == "if":
            said, at = _condition(run, at, rest, live=live, depth=depth + 1)
            out.append(said)
        elif word in UNSUPPORTED or body.startswith("$"):
            raise TemplateError(f"{{{{{body}}}}}: {word} is not supported", line)
        elif live:
            out.append(_shown(_evaluate(body, line, run), body, line))
        at += 1
    return "".join(out), at


def _condition(run: _Run, at: int, test: str, *, live: bool, depth: int) -> tuple[str, int]:
    """From an `if` to its `end`."""
    out, done, line = "", False, run.pieces[at][2]
    if depth > DEEPEST:
        raise TemplateError(f"conditions are nested more than {DEEPEST} deep", line)
    holds = live and bool(_evaluate(test, line, run))
    while True:
        said, at = _block(run, at + 1, live=live and (run.every or (holds and not done)), depth=depth)
        out, done = out + said, done or holds
        if at >= len(run.pieces):
            raise TemplateError("{{if}} without its {{end}}", line)
        _, body, here = run.pieces[at]
        word, _, rest = body.partition(" ")
        if word == "end":
            return out, at
        rest = rest.strip()
        if rest and not rest.startswith("if "):
            raise TemplateError(f"{{{{else {rest}}}}}: only if can follow", here)
        holds = live and (bool(_evaluate(rest[3:], here, run)) if rest else True)


def _evaluate(body: str, line: int, run: _Run) -> Any:
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(body.rstrip()):
        match = _TOKEN.match(body, at)
        if not match:
            raise TemplateError(f"{{{{{body}}}}}: {body[at:].strip()[:20]!r} is not understood", line)
        kind = ("text", "field", "number", "word", "mark")[next(i for i, g in enumerate(match.groups()) if g is not None)]
        tokens.append((kind, match[0].strip()))
        at = match.end()
    if sum(t == ("mark", "(") for t in tokens) > DEEPEST:
        raise TemplateError(f"more than {DEEPEST} parentheses", line)
    found, rest = _pipeline(tokens, body, line, run)
    if rest:
        raise TemplateError(f"{{{{{body}}}}}: {rest[0][1]!r} is not understood", line)
    return found


Tokens = list[tuple[str, str]]


def _pipeline(tokens: Tokens, body: str, line: int, run: _Run) -> tuple[Any, Tokens]:
    """Commands with | between them: the value of one is the last operand of the next."""
    before: list[Any] = []
    while True:
        operands: list[Any] = []
        call: Function | None = None
        while tokens and tokens[0][1] not in ("|", ")"):
            (kind, text), tokens = tokens[0], tokens[1:]
            if kind == "mark":
                inner, tokens = _pipeline(tokens, body, line, run)
                if not tokens:
                    raise TemplateError(f"{{{{{body}}}}}: ( without its )", line)
                operands.append(inner)
                tokens = tokens[1:]
            elif kind == "word" and text in ("true", "false"):
                operands.append(text == "true")
            elif kind == "word":
                if text not in run.functions or operands or call:
                    there = ", ".join(sorted(run.functions))
                    raise TemplateError(f"{{{{{body}}}}}: there is no {text}; there is {there}", line)
                call = run.functions[text]
            else:
                operands.append(_operand(kind, text, body, line, run.values))
        operands += before
        if call is None and len(operands) != 1:
            raise TemplateError(f"{{{{{body}}}}} says nothing", line)
        try:
            before = [call(*operands) if call else operands[0]]
        except (TypeError, ValueError, LookupError) as error:
            raise TemplateError(f"{{{{{body}}}}}: {error}", line) from None
        if not tokens or tokens[0][1] == ")":
            return before[0], tokens
        tokens = tokens[1:]


def _operand(kind: str, text: str, body: str, line: int, values: Values) -> Any:
    if kind == "number":
        return int(text)
    if kind == "text":
        return text[1:-1] if text[0] == "`" else re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), text[1:-1])
    found: Any = values
    for name in filter(None, text.split(".")):
        if not isinstance(found, Mapping) or name not in found:
            known = ", ".join(f".{n}" for n in placeholders(values))
            raise TemplateError(f"{{{{{body}}}}}: there is no {text}; there is {known}", line)
        found = found[name]
    return found


def _shown(value: Any, body: str, line: int) -> str:
    if isinstance(value, Mapping):
        raise TemplateError(f"{{{{{body}}}}} is no text: name one of {', '.join(value) or 'nothing'}", line)
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def placeholders(values: Values, above: str = "") -> list[str]:
    """The names of all *values*, as templates write them but for the first dot."""
    out = []
    for name, value in values.items():
        out += placeholders(value, f"{above}{name}.") if isinstance(value, Mapping) and value else [f"{above}{name}"]
    return out


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if not isinstance(value, Mapping):
            raise ValueError(f"{value!r} has no parts")
        if key not in value:
            raise LookupError(f"there is no {key!r}; there is {', '.join(value) or 'none'}")
        value = value[key]
    return value


def _printf(form: str, *given: Any) -> str:
    rest = list(given)

    def put(match: re.Match[str]) -> str:
        if match[1] == "%":
            return "%"
        if not rest:
            raise ValueError(f"{form!r} wants more than {len(given)} values")
        value = rest.pop(0)
        return f'"{value}"' if match[1] == "q" else str(value)

    return _VERB.sub(put, form)


BUILTINS: Mapping[str, Function] = {
    "index": _index,
    "join": lambda mark, *parts: str(mark).join(map(str, parts)),
    "printf": _printf,
    "print": lambda *parts: "".join(map(str, parts)),
    "println": lambda *parts: " ".join(map(str, parts)) + "\n",
    "len": len,
    "eq": lambda one, *others: one in others,
    "ne": lambda one, other: one != other,
    "not": lambda one: not one,
    "and": lambda *given: next((g for g in given if not g), given[-1]),
    "or": lambda *given: next((g for g in given if g), given[-1]),
}
