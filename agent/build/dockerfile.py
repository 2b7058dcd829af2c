"""The text of a Dockerfile, cut into instructions: parser directives, comments, continued lines, flags, heredocs.

Pure. Source: Dockerfile reference, "Format", "Parser directives", "Here-Documents".
"""

from __future__ import annotations

import re

import msgspec

from agent.build.errors import DockerfileError
from agent.contract.printable import quoted

LARGEST = 4 << 20
"""Bytes of a Dockerfile: those that people write have some kilobytes."""
MOST = 10_000
"""Instructions of a Dockerfile."""
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*\Z")
_DIRECTIVES = ("syntax", "escape", "check")
HEREDOC = re.compile(r"[0-9]*<<(-?)([^<]+)\Z")
"""A word that a heredoc stands for: `<<NAME`, `<<-NAME`, the name in quotes or not."""
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")
_BLANK = " \t\f\v\r"


class Heredoc(msgspec.Struct, frozen=True):
    """A text in place of a file. *expand*: variables in it are put in; *tabs*: those at the beginnings of lines go."""

    name: str
    content: str
    expand: bool
    tabs: bool

    @property
    def plain(self) -> str:
        """The text as it is used, without the tabs that `<<-` takes off."""
        return re.sub(r"(?m)^\t+", "", self.content) if self.tabs else self.content


class Instruction(msgspec.Struct, frozen=True):
    """One instruction: *word* in upper case, *flags* as they stand (`--name`, value; "" with *bare*), *rest* all behind them,
    continued lines joined. *line* is where it begins, *last* where it ends."""

    word: str
    rest: str
    line: int
    last: int
    column: int = 1
    flags: tuple[tuple[str, str | None], ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    inner: Instruction | None = None
    """What ONBUILD puts off."""

    @property
    def shown(self) -> str:
        """The instruction in one line, as messages have it."""
        flags = "".join(f" --{name}" if value is None else f" --{name}={value}" for name, value in self.flags)
        return f"{self.word}{flags} {self.rest}".rstrip()


class Dockerfile(msgspec.Struct, frozen=True):
    """*name* is what messages call it, *text* all of it."""

    name: str
    text: str
    escape: str
    syntax: str
    instructions: tuple[Instruction, ...]

    def error(self, at: Instruction, why: str) -> DockerfileError:
        """The error that the instruction *at* is wrong for the reason *why*, with its line."""
        return DockerfileError(why, at.line, at.column, name=self.name, text=self.text)


def read(data: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Cut *data* into instructions. Raises DockerfileError."""
    if len(data) > LARGEST:
        raise DockerfileError(f"the Dockerfile has {len(data)} bytes, and {LARGEST} are allowed", 1, name=name)
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="replace").replace("\r\n", "\n")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DockerfileError("a zero byte is not text", line, name=name)
    return _Reader(name, text).read()


class _Reader:
    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.lines = text.split("\n")
        self.at = 0
        self.directives: dict[str, str] = {}

    def read(self) -> Dockerfile:
        self._directives()
        escape = self.directives.get("escape", "\\")
        found: list[Instruction] = []
        while (one := self._next(escape)) is not None:
            found.append(one)
            if len(found) > MOST:
                raise self._error(f"more than {MOST} instructions", one.line)
        if not found:
            raise self._error("it has no instruction: the first is FROM", 1)
        return Dockerfile(self.name, self.text, escape, self.directives.get("syntax", ""), tuple(found))

    def _error(self, why: str, line: int, column: int = 1) -> DockerfileError:
        return DockerfileError(why, line, column, name=self.name, text=self.text)

    def _directives(self) -> None:
        if self.lines[0].startswith("#!"):
            self.at = 1
        while self.at < len(self.lines):
            match = _DIRECTIVE.match(self.lines[self.at].strip())
            if not match or match[1].lower() not in _DIRECTIVES:
                break
            key, value = match[1].lower(), match[2]
            if key in self.directives:
                raise self._error(f"only one {key} parser directive can be used", self.at + 1)
            if key == "escape" and value not in ("\\", "`"):
                raise self._error(f"invalid ESCAPE {quoted(value)!r}: it must be ` or \\", self.at + 1)
            self.directives[key] = value
            self.at += 1

    def _next(self, escape: str) -> Instruction | None:
        """The next instruction; None at the end."""
        while self.at < len(self.lines) and _is_nothing(self.lines[self.at]):
            self.at += 1
        if self.at >= len(self.lines):
            return None
        line = self.at + 1
        raw = self.lines[self.at]
        column = len(raw) - len(raw.lstrip(_BLANK)) + 1
        text = self._joined(escape)
        one = _cut(text, line, column, self._error, escape)
        return self._with_heredocs(one, escape)

    def _joined(self, escape: str) -> str:
        """A whole instruction from here on: lines that end with *escape* go on in the next, comments between them go."""
        continued = re.compile(
            rf"(?:(?<={re.escape(escape)}{re.escape(escape)})|(?<!{re.escape(escape)})){re.escape(escape)}[ \t]*\Z"
        )
        parts: list[str] = []
        while self.at < len(self.lines):
            raw = self.lines[self.at]
            self.at += 1
            if parts and _is_nothing(raw):
                continue
            raw = raw.rstrip("\r")
            match = continued.search(raw)
            ends = match is None or raw[: match.start()].endswith(escape)
            parts.append(raw if ends or match is None else raw[: match.start()])
            if ends:
                break
        return "".join(parts).strip(_BLANK)

    def _with_heredocs(self, one: Instruction, escape: str) -> Instruction:
        holding = one.inner or one
        if holding.word not in _WITH_HEREDOCS or holding.rest.startswith("["):
            return _ending(one, self.at, ())
        docs = []
        for match in filter(None, map(HEREDOC.match, raw_words(holding.rest, escape))):
            name = match[2]
            docs.append(
                self._heredoc(re.sub(r"[\"']", "", name), one.line, expand=not re.search(r"[\"']", name), tabs=bool(match[1]))
            )
        return _ending(one, self.at, tuple(docs))

    def _heredoc(self, name: str, line: int, *, expand: bool, tabs: bool) -> Heredoc:
        begin = self.at
        while self.at < len(self.lines):
            raw = self.lines[self.at].rstrip("\r")
            self.at += 1
            if (raw.lstrip("\t") if tabs else raw) == name:
                content = "".join(f"{text}\n" for text in self.lines[begin : self.at - 1])
                return Heredoc(name, content, expand, tabs)
        raise self._error(f"unterminated heredoc: no line is {quoted(name)!r} alone", line)


def _ending(one: Instruction, last: int, docs: tuple[Heredoc, ...]) -> Instruction:
    inner = msgspec.structs.replace(one.inner, last=last, heredocs=docs) if one.inner else None
    return msgspec.structs.replace(one, last=last, heredocs=() if inner else docs, inner=inner)


def _is_nothing(raw: str) -> bool:
    """A blank line or a comment."""
    bare = raw.strip(_BLANK)
    return not bare or bare.startswith("#")


def raw_words(text: str, escape: str) -> list[str]:
    """*text* cut at blanks that are neither quoted nor escaped; quotes and escapes stay."""
    out, word, quote, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        if char in " \t\n" and not quote:
            if word:
                out.append(word)
            word = ""
        else:
            word += char
        at += 1
    return [*out, word] if word else out


def _cut(text: str, line: int, column: int, error: object, escape: str) -> Instruction:
    """Word, flags and rest of one instruction."""
    word, _, rest = re.sub(r"\A(\S+)\s+", r"\1 ", text).partition(" ")
    flags, rest = _flags(rest.lstrip(_BLANK), escape)
    word = word.upper()
    inner = None
    if word == "ONBUILD" and rest:
        inner = _cut(rest, line, column, error, escape)
    return Instruction(word, rest, line, line, column, tuple(flags), (), inner)


def _flags(text: str, escape: str) -> tuple[list[tuple[str, str | None]], str]:
    """The flags at the beginning, which start with `--`, and the rest. Quotes group a value and are not part of it."""
    found: list[tuple[str, str | None]] = []
    while text.startswith("--"):
        word, at = "", 0
        quote = ""
        while at < len(text):
            char = text[at]
            if quote:
                if char == quote:
                    quote = ""
                elif char == escape and at + 1 < len(text):
                    at += 1
                    word += text[at]
                else:
                    word += char
            elif char in "\"'":
                quote = char
            elif char == escape and at + 1 < len(text):
                at += 1
                word += text[at]
            elif char in " \t":
                break
            else:
                word += char
            at += 1
        if word == "--":
            return found, text[at:].lstrip(_BLANK)
        name, equals, value = word[2:].partition("=")
        found.append((name, value if equals else None))
        text = text[at:].lstrip(_BLANK)
    return found, text
