"""Templates in the language of Go's text/template: Swarm's in stack files, and `--format` of commands.

A template is parsed into a tree, which is then run on values. Fields, functions, pipelines, variables, conditions, `with`,
`range`, `define`, `template` and `block` are there, and comments, and `{{-` and `-}}`, which take the blanks beside them away.
Source: the text/template package; Docker CLI reference, `docker service create`, "Create services using templates", `docker
config create --template-driver`, and "Format command and log output".
"""

from __future__ import annotations

import functools
import re
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Values = Mapping[str, Any]
"""By name: texts, or values again."""
Function = Callable[..., Any]

_SPACE = re.compile(r"\s+")
DEEPEST = 50
MOST_STEPS = 20_000
"""Actions that one template may carry out: loops in loops come to more than anybody waits for."""
LARGEST = 16 << 20
"""Characters that a template, or a value in it, may come to."""
_VERB = r"%[-+#0 ]*\d{0,3}(?:\.\d{1,3})?([svdqfgtx%])"
_ESCAPE = re.compile(r"\\(.)")


@functools.cache
def _token() -> re.Pattern[str]:
    """Compiled when the first template is read: most commands read none."""
    return re.compile(
        r"(?P<text>\"(?:\\.|[^\"\\])*\"|`[^`]*`)"
        r"|(?P<field>\.(?:[^\W\d]\w*(?:\.[^\W\d]\w*)*)?)"
        r"|(?P<variable>\$\w*(?:\.[^\W\d]\w*)*)"
        r"|(?P<number>-?\d+(?:\.\d+)?)"
        r"|(?P<word>[^\W\d]\w*)"
        r"|(?P<mark>:=|[=|(),])"
    )


class TemplateError(Exception):
    """What is wrong in a template; *line* counts from 1 in its text."""

    def __init__(self, what: str, line: int = 1) -> None:
        super().__init__(what)
        self.line = line


def expand(text: str, values: Values, functions: Mapping[str, Function] = {}, *, every: bool = False) -> str:
    """*text* with its actions carried out. *every*: evaluate all branches, to find errors in any. Raises TemplateError."""
    parser = _Parser(list(_pieces(text)))
    nodes = parser.block(0)
    run = _Run(values, {**BUILTINS, **functions}, parser.defined, every=every)
    out: list[str] = []
    try:
        run.nodes(nodes, _Scope(values, ChainMap({"$": values})), out)
        for name in parser.defined if every else ():
            run.nodes(parser.defined[name], _Scope(values, ChainMap({"$": values})), [])
    except _LoopEnd as error:
        raise TemplateError("{{break}} and {{continue}} stand in a {{range}}", error.line) from None
    return "".join(out)


# --- the text as pieces --------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """Text as it stands, or what an action says, and its line."""

    is_action: bool
    body: str
    line: int


def _pieces(text: str) -> Iterator[_Piece]:
    at, trim = 0, False
    while (start := text.find("{{", at)) >= 0:
        line = text.count("\n", 0, start) + 1
        before = text[at:start].lstrip() if trim else text[at:start]
        first = start + 2
        if text[first : first + 1] == "-" and text[first + 1 : first + 2].isspace():
            before, first = before.rstrip(), first + 1
        yield _Piece(False, before, 0)
        end = _end(text, first, line)
        body = text[first:end]
        trim = body[-1:] == "-" and body[-2:-1].isspace()
        body = (body[:-1] if trim else body).strip()
        if not body.startswith("/*"):
            yield _Piece(True, body, line)
        at = end + 2
    yield _Piece(False, text[at:].lstrip() if trim else text[at:], 0)


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


# --- pieces as a tree ----------------------------------------------------------------------------------------------------


class _Action(NamedTuple):
    """One {{…}}: its keyword or "", the variables that it sets, and what it evaluates."""

    keyword: str
    body: str
    line: int
    variables: tuple[str, ...]
    declares: bool
    pipeline: list[Any]

    @property
    def shown(self) -> str:
        """As it is written."""
        return f"{{{{{self.body}}}}}"


class _Branch(NamedTuple):
    """An action and what it governs: an `if` and its `else`s are a list of these; the last may have no pipeline."""

    action: _Action
    nodes: list[Any]


class _Token(NamedTuple):
    kind: str
    text: str
    beside: bool
    """Nothing stands between it and the token before."""


KEYWORDS = ("if", "range", "with", "define", "block", "template", "else", "end", "break", "continue")
_OPENING = ("if", "range", "with", "define", "block")


class _Parser:
    """Pieces → nodes: text, an _Action, or a list of _Branch. *defined* has what `define` and `block` name."""

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        self._pieces = pieces
        self._at = 0
        self.defined: dict[str, list[Any]] = {}

    def block(self, depth: int) -> list[Any]:
        """The nodes up to the end of the text, or up to the `else` or `end` of what encloses them."""
        nodes: list[Any] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            if not piece.is_action:
                nodes.append(piece.body)
            else:
                keyword = piece.body.split(maxsplit=1)[0] if piece.body else ""
                if keyword in ("else", "end"):
                    if not depth:
                        raise TemplateError(f"{{{{{piece.body}}}}} without its if", piece.line)
                    return nodes
                nodes.append(self._opened(piece, keyword, depth + 1) if keyword in _OPENING else _parsed(piece, keyword))
            self._at += 1
        return nodes

    def _opened(self, piece: _Piece, keyword: str, depth: int) -> Any:
        if depth > DEEPEST:
            raise TemplateError(f"conditions are nested more than {DEEPEST} deep", piece.line)
        branches: list[_Branch] = []
        action = _parsed(piece, keyword)
        while True:
            self._at += 1
            branches.append(_Branch(action, self.block(depth)))
            if self._at >= len(self._pieces):
                raise TemplateError(f"{{{{{keyword}}}}} without its {{{{end}}}}", piece.line)
            here = self._pieces[self._at]
            rest = here.body.split()[1:]
            if here.body.split()[0] == "end":
                break
            if rest and rest[0] not in ("if", "with"):
                raise TemplateError(f"{{{{{here.body}}}}}: only if can follow", here.line)
            action = _parsed(_Piece(True, here.body[4:].strip(), here.line), rest[0] if rest else "else")
        if keyword in ("define", "block"):
            return self._named(branches)
        return branches

    def _named(self, branches: list[_Branch]) -> Any:
        """What `define` says is kept for later; `block` uses it at once, too."""
        action = branches[0].action
        if len(branches) > 1 or not action.pipeline or not isinstance(action.pipeline[0], _Token):
            raise TemplateError(f'{action.shown}: write {action.keyword} "NAME"', action.line)
        self.defined[_unquoted(action.pipeline[0].text)] = branches[0].nodes
        return action if action.keyword == "block" else ""


def _parsed(piece: _Piece, keyword: str) -> _Action:
    is_keyword = keyword in KEYWORDS
    body = piece.body
    tokens = _tokens(body[len(keyword) :] if is_keyword else body, body, piece.line)
    variables: tuple[str, ...] = ()
    declares = False
    for number, token in enumerate(tokens):
        if token.text in (":=", "="):
            names = [t for t in tokens[:number] if t.text != ","]
            if not names or len(names) > 2 or any(t.kind != "variable" or "." in t.text for t in names):
                raise TemplateError(f"{{{{{body}}}}}: {token.text} sets variables: $x {token.text} …", piece.line)
            variables, declares = tuple(t.text for t in names), token.text == ":="
            tokens = tokens[number + 1 :]
            break
    if sum(t.text == "(" for t in tokens) > DEEPEST:
        raise TemplateError(f"more than {DEEPEST} parentheses", piece.line)
    if keyword in ("define", "block", "template"):
        if not tokens or tokens[0].kind != "text":
            raise TemplateError(f'{{{{{body}}}}}: write {keyword} "NAME"', piece.line)
        return _Action(keyword, body, piece.line, (), False, [tokens[0], _tree(tokens[1:], body, piece.line)])
    pipeline = _tree(tokens, body, piece.line)
    empty = keyword in ("else", "break", "continue")
    if bool(pipeline) is empty and (is_keyword or not pipeline):
        what = "says nothing" if not pipeline else "says too much"
        raise TemplateError(f"{{{{{body}}}}} {what}", piece.line)
    return _Action(keyword if is_keyword else "", body, piece.line, variables, declares, pipeline)


def _tokens(text: str, body: str, line: int) -> list[_Token]:
    tokens: list[_Token] = []
    at, beside = 0, False
    while at < len(text):
        if space := _SPACE.match(text, at):
            at, beside = space.end(), False
            continue
        match = _token().match(text, at)
        if not match or match.lastgroup is None:
            raise TemplateError(f"{{{{{body}}}}}: {text[at:].strip()[:20]!r} is not understood", line)
        tokens.append(_Token(match.lastgroup, match[0], beside))
        at, beside = match.end(), True
    return tokens


def _tree(tokens: list[_Token], body: str, line: int) -> list[Any]:
    """Commands, each a list of operands: a token, or what parentheses hold, as (commands, field after them)."""
    stack: list[list[list[Any]]] = [[[]]]
    for token in tokens:
        if token.text == "(" and token.kind == "mark":
            stack.append([[]])
        elif token.text == ")" and token.kind == "mark":
            if len(stack) < 2:
                raise TemplateError(f"{{{{{body}}}}}: ')' is not understood", line)
            inner = stack.pop()
            stack[-1][-1].append((_whole(inner, body, line), ""))
        elif token.text == "|" and token.kind == "mark":
            stack[-1].append([])
        elif token.kind == "mark":
            raise TemplateError(f"{{{{{body}}}}}: {token.text!r} is not understood", line)
        elif token.kind == "field" and token.beside and stack[-1][-1] and not isinstance(stack[-1][-1][-1], _Token):
            inner, field = stack[-1][-1].pop()
            stack[-1][-1].append((inner, field + token.text))
        else:
            stack[-1][-1].append(token)
    if len(stack) > 1:
        raise TemplateError(f"{{{{{body}}}}}: ( without its )", line)
    return [] if stack[0] == [[]] else _whole(stack[0], body, line)


def _whole(commands: list[list[Any]], body: str, line: int) -> list[list[Any]]:
    if not all(commands):
        raise TemplateError(f"{{{{{body}}}}} says nothing", line)
    return commands


# --- the tree at work ----------------------------------------------------------------------------------------------------


class _Scope(NamedTuple):
    """What the dot and the variables stand for."""

    dot: Any
    variables: ChainMap[str, Any]

    def inner(self, dot: Any) -> _Scope:
        """One for a block of its own: what is declared there is not known outside."""
        return _Scope(dot, self.variables.new_child())


class _LoopEnd(Exception):  # noqa: N818  not an error: `break` and `continue` leave a block by it
    def __init__(self, line: int, *, whole: bool) -> None:
        super().__init__()
        self.line, self.whole = line, whole


class _Run:
    """One run of a tree. *every* branch is taken to find the errors in any."""

    def __init__(
        self, values: Values, functions: Mapping[str, Function], defined: Mapping[str, list[Any]], *, every: bool
    ) -> None:
        self._values = values
        self._functions = functions
        self._defined = defined
        self._every = every
        self._steps = 0
        self._depth = 0
        self._size = 0

    def nodes(self, nodes: Sequence[Any], scope: _Scope, out: list[str]) -> None:
        """Carry out *nodes*, and add what they come to to *out*. Raises TemplateError."""
        self._depth += 1
        for node in nodes:
            if isinstance(node, str):
                self._put(node, 0, out)
            elif isinstance(node, _Action):
                self._action(node, scope, out)
            else:
                self._branches(node, scope, out)
        self._depth -= 1

    def _put(self, text: str, line: int, out: list[str]) -> None:
        self._size += len(text)
        if self._size > LARGEST:
            raise TemplateError(f"it comes to more than {LARGEST} characters", line or 1)
        out.append(text)

    def _step(self, line: int) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise TemplateError(f"it carries out more than {MOST_STEPS} actions", line)

    def _action(self, action: _Action, scope: _Scope, out: list[str]) -> None:
        self._step(action.line)
        if action.keyword in ("break", "continue"):
            raise _LoopEnd(action.line, whole=action.keyword == "break")
        if action.keyword in ("template", "block"):
            return self._template(action, scope, out)
        found = self._value(action, scope)
        if action.variables:
            self._set(action, scope, found)
        else:
            self._put(_shown(found, action), action.line, out)

    def _template(self, action: _Action, scope: _Scope, out: list[str]) -> None:
        token, pipeline = action.pipeline
        name = _unquoted(token.text)
        if name not in self._defined:
            raise TemplateError(f"{action.shown}: nothing defines {name!r}", action.line)
        if self._depth > 2 * DEEPEST:
            raise TemplateError(f"{action.shown}: templates call each other without an end", action.line)
        given = self._commands(pipeline, action, scope) if pipeline else None
        self.nodes(self._defined[name], _Scope(given, ChainMap({"$": given})), out)

    def _set(self, action: _Action, scope: _Scope, value: Any) -> None:
        name = action.variables[0]
        if not action.declares and name not in scope.variables:
            raise TemplateError(f"{action.shown}: {name} is not declared: write {name} := …", action.line)
        where = scope.variables if action.declares else next(m for m in scope.variables.maps if name in m)
        where[name] = value

    def _branches(self, branches: list[_Branch], scope: _Scope, out: list[str]) -> None:
        done = False
        for branch in branches:
            action = branch.action
            if done and not self._every:
                return
            if action.keyword == "else":
                self.nodes(branch.nodes, scope.inner(scope.dot), out)
                return
            found = self._value(action, scope)
            if action.keyword == "range":
                done = self._loop(branch, found, scope, out)
            elif found or (self._every and action.keyword == "if"):
                inner = scope.inner(found if action.keyword == "with" else scope.dot)
                inner.variables.update(dict.fromkeys(action.variables[:1], found))
                self.nodes(branch.nodes, inner, out)
                done = True

    def _loop(self, branch: _Branch, found: Any, scope: _Scope, out: list[str]) -> bool:
        """A `range`; whether there was anything to go over."""
        action = branch.action
        if isinstance(found, int) and not isinstance(found, bool):
            found = range(min(found, MOST_STEPS + 1))
        if isinstance(found, Mapping):
            pairs = [(key, found[key]) for key in sorted(found)]
        elif isinstance(found, list | tuple | range):
            pairs = list(enumerate(found))
        elif found is None:
            pairs = []
        else:
            raise TemplateError(f"{action.shown}: {str(found)[:40]!r} has no parts to go over", action.line)
        for key, value in pairs:
            inner = scope.inner(value)
            inner.variables.update(zip(action.variables, (key, value) if len(action.variables) > 1 else (value,), strict=False))
            self._step(action.line)
            depth = self._depth
            try:
                self.nodes(branch.nodes, inner, out)
            except _LoopEnd as end:
                self._depth = depth
                if end.whole:
                    break
        return bool(pairs)

    def _value(self, action: _Action, scope: _Scope) -> Any:
        return self._commands(action.pipeline, action, scope)

    def _commands(self, commands: list[list[Any]], action: _Action, scope: _Scope) -> Any:
        """What the last of *commands* comes to; what one comes to is the last operand of the next."""
        before: list[Any] = []
        for operands in commands:
            first = operands[0]
            if isinstance(first, _Token) and first.kind == "word" and first.text not in ("true", "false", "nil"):
                call = self._functions.get(first.text)
                if call is None:
                    raise TemplateError(f"{action.shown}: there is no {first.text}; there is {self._known()}", action.line)
                given = [self._operand(o, action, scope) for o in operands[1:]] + before
            else:
                given = [self._operand(o, action, scope) for o in operands] + before
                call = None
                if len(given) != 1:
                    raise TemplateError(f"{action.shown}: {_written(first)} is not a function", action.line)
            try:
                before = [call(*given) if call else given[0]]
            except (TypeError, ValueError, LookupError) as error:
                raise TemplateError(f"{action.shown}: {error}", action.line) from None
            if isinstance(before[0], str) and len(before[0]) > LARGEST:
                raise TemplateError(f"{action.shown} comes to more than {LARGEST} characters", action.line)
        return before[0]

    def _known(self) -> str:
        return ", ".join(sorted(self._functions))

    def _operand(self, operand: Any, action: _Action, scope: _Scope) -> Any:
        if not isinstance(operand, _Token):
            inner, field = operand
            return self._field(self._commands(inner, action, scope), field, action)
        kind, text, _ = operand
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "text":
            return _unquoted(text)
        if kind == "variable":
            name, _, field = text.partition(".")
            if name not in scope.variables:
                raise TemplateError(f"{action.shown}: there is no {name}", action.line)
            return self._field(scope.variables[name], f".{field}", action)
        if kind == "field":
            return self._field(scope.dot, text, action)
        if text in ("true", "false", "nil"):
            return {"true": True, "false": False, "nil": None}[text]
        if text in self._functions:
            return self._commands([[operand]], action, scope)
        raise TemplateError(f"{action.shown}: there is no {text}; there is {self._known()}", action.line)

    def _field(self, found: Any, text: str, action: _Action) -> Any:
        whole = found
        for name in filter(None, text.split(".")):
            if not isinstance(found, Mapping) or name not in found:
                known = ", ".join(f".{n}" for n in placeholders(whole)) if isinstance(whole, Mapping) else "no field"
                raise TemplateError(f"{action.shown}: there is no {text}; there is {known}", action.line)
            found = found[name]
        return found


def _written(operand: Any) -> str:
    return operand.text if isinstance(operand, _Token) else "what stands in parentheses"


def _unquoted(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    return _ESCAPE.sub(lambda m: {"n": "\n", "t": "\t", "r": "\r"}.get(m[1], m[1]), text[1:-1])


def _shown(value: Any, action: _Action) -> str:
    if isinstance(value, Mapping):
        names = ", ".join(map(str, value)) or "nothing"
        raise TemplateError(f"{action.shown} is not text: name one of {names}", action.line)
    return text_of(value)


def text_of(value: Any) -> str:
    """*value* as fmt.Print shows it: a list as [a b], nothing as <no value>."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<no value>"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{k}:{text_of(value[k])}' for k in sorted(value))}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(text_of, value))}]"
    return str(value)


def placeholders(values: Values, above: str = "") -> list[str]:
    """The names of all *values*, as templates write them but for the first dot."""
    out = []
    for name, value in values.items():
        out += placeholders(value, f"{above}{name}.") if isinstance(value, Mapping) and value else [f"{above}{name}"]
    return out


# --- functions -----------------------------------------------------------------------------------------------------------


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, list | tuple) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise LookupError(f"there is no part {key}; there are {len(value)}")
        elif not isinstance(value, Mapping):
            raise ValueError(f"{value!r} has no parts")
        elif key not in value:
            raise LookupError(f"there is no {key!r}; there is {', '.join(map(str, value)) or 'none'}")
        value = value[key]
    return value


def _slice(value: Any, *bounds: int) -> Any:
    if not isinstance(value, str | list | tuple) or len(bounds) > 2:
        raise ValueError("slice takes a text or a list, and up to two bounds")
    begin, end = (*bounds, *(0, len(value))[len(bounds) :])[:2]
    if not 0 <= begin <= end <= len(value):
        raise ValueError(f"there is no part from {begin} to {end} of {len(value)}")
    return value[begin:end]


def _printf(form: str, *given: Any) -> str:
    rest = list(given)

    def put(match: re.Match[str]) -> str:
        if match[1] == "%":
            return "%"
        if not rest:
            raise ValueError(f"{form!r} wants more than {len(given)} values")
        value = rest.pop(0)
        if match[1] == "q":
            return f'"{text_of(value)}"'
        if match[1] in "vt" or not re.search(r"[-+#0 \d.]", match[0][1:-1]):
            return text_of(value)
        return str(match[0].replace("#", "") % value)  # widths and precisions are C's

    return re.sub(_VERB, put, form)


def _equal(one: Any, *others: Any) -> bool:
    return one in others


BUILTINS: Mapping[str, Function] = {
    "index": _index,
    "slice": _slice,
    "join": lambda mark, *parts: str(mark).join(map(str, parts)),
    "printf": _printf,
    "print": lambda *parts: "".join(map(text_of, parts)),
    "println": lambda *parts: " ".join(map(text_of, parts)) + "\n",
    "len": len,
    "eq": _equal,
    "ne": lambda one, other: one != other,
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
    "gt": lambda one, other: one > other,
    "ge": lambda one, other: one >= other,
    "not": lambda one: not one,
    "and": lambda *given: next((g for g in given if not g), given[-1]),
    "or": lambda *given: next((g for g in given if g), given[-1]),
}
