"""Variables in a Dockerfile: `$NAME`, `${NAME}` and its modifiers, quotes and the escape character.

Pure. Source: Dockerfile reference, "Environment replacement"; POSIX Shell Command Language, 2.6.2 Parameter Expansion (for what
# % / mean).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.contract.printable import quoted, shown

LONGEST = 1 << 20
"""Characters of one word: variables in variables can double a text with each line."""
LONGEST_SHOWN = 400
"""Characters of an error."""
DEPTH = 50
COSTLY = 200_000
"""Steps that matching a pattern may take."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?!$-]")


class WordError(ValueError):
    """Why a word cannot be expanded; names can be as long as the file."""

    def __init__(self, why: str) -> None:
        super().__init__(shown(why, LONGEST_SHOWN))


class Expansion:
    """*values* are the variables, *escape* the escape character. *used* collects the names that were asked for.

    With *keep_quotes* quotes and escapes stay where they are."""

    def __init__(self, values: Mapping[str, str], escape: str = "\\", *, keep_quotes: bool = False) -> None:
        self.values, self.escape, self.keep_quotes = values, escape, keep_quotes
        self.used: set[str] = set()
        self._depth = 0

    def word(self, text: str) -> str:
        """*text* as one word. Raises WordError."""
        out, at = self._until(text, 0, "")
        assert at == len(text)
        return out

    def words(self, text: str) -> list[str]:
        """*text* cut where blanks stand that are not quoted, those of values among them. Raises WordError."""
        parts: list[str] = [""]
        started = [False]
        at = 0
        while at < len(text):
            char = text[at]
            if char in " \t\n":
                if started[-1]:
                    parts.append("")
                    started.append(False)
                at += 1
            elif char in "\"'" or char == self.escape:
                piece, at = self._piece(text, at)
                parts[-1] += piece
                started[-1] = True
            elif char == "$":
                piece, at = self._dollar(text, at)
                cut = re.split(r"[ \t\n]+", piece)
                parts[-1] += cut[0]
                started[-1] = started[-1] or bool(cut[0])
                for more in cut[1:]:
                    if started[-1]:
                        parts.append(more)
                        started.append(bool(more))
                    else:
                        parts[-1], started[-1] = more, bool(more)
            else:
                parts[-1] += char
                started[-1] = True
                at += 1
        return [part for part, there in zip(parts, started, strict=True) if there]

    def _until(self, text: str, at: int, stop: str) -> tuple[str, int]:
        """Expand from *at* up to one of the characters *stop*, or the end."""
        out: list[str] = []
        size = 0
        while at < len(text) and (not stop or text[at] not in stop):
            piece, at = self._piece(text, at)
            out.append(piece)
            size += len(piece)
            if size > LONGEST:
                raise WordError(f"it becomes longer than {LONGEST} characters")
        return "".join(out), at

    def _piece(self, text: str, at: int) -> tuple[str, int]:
        char = text[at]
        if char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise WordError("a single quote is not closed")
            return (text[at : end + 1] if self.keep_quotes else text[at + 1 : end]), end + 1
        if char == '"':
            return self._double(text, at)
        if char == "$":
            return self._dollar(text, at)
        if char == self.escape:
            if at + 1 >= len(text):
                return char, at + 1
            return (text[at : at + 2] if self.keep_quotes else text[at + 1]), at + 2
        return char, at + 1

    def _double(self, text: str, at: int) -> tuple[str, int]:
        out, at = ['"' if self.keep_quotes else ""], at + 1
        while at < len(text):
            char = text[at]
            if char == '"':
                return "".join(out) + ('"' if self.keep_quotes else ""), at + 1
            if char == "$":
                piece, at = self._dollar(text, at)
                out.append(piece)
                continue
            if char == self.escape and at + 1 < len(text) and text[at + 1] in f'"${self.escape}':
                out.append(text[at : at + 2] if self.keep_quotes else text[at + 1])
                at += 2
                continue
            out.append(char)
            at += 1
        raise WordError("a double quote is not closed")

    def _dollar(self, text: str, at: int) -> tuple[str, int]:
        if text.startswith("${", at):
            self._depth += 1
            if self._depth > DEPTH:
                raise WordError(f"variables stand in each other more than {DEPTH} deep")
            try:
                return self._braces(text, at + 2)
            finally:
                self._depth -= 1
        match = _NAME.match(text, at + 1)
        if not match:
            return "$", at + 1
        return self._value(match[0]) or "", match.end()

    def _value(self, name: str) -> str | None:
        self.used.add(name)
        return self.values.get(name)

    def _braces(self, text: str, at: int) -> tuple[str, int]:
        match = _NAME.match(text, at)
        if not match:
            raise WordError(f"${{{quoted(text[at : at + 20])}: a name is wanted in the braces")
        name, at = match[0], match.end()
        value = self._value(name)
        if text.startswith("}", at):
            return value or "", at + 1
        operator = next(
            (o for o in (":-", ":+", ":?", "##", "%%", "//", "-", "+", "?", "#", "%", "/") if text.startswith(o, at)), ""
        )
        if not operator:
            if at >= len(text):
                raise WordError(f"${{{name}: the brace is not closed")
            raise WordError(
                f"${{{name}{quoted(text[at : at + 2])}: unsupported modifier ({quoted(text[at : at + 2])}) in substitution"
            )
        at += len(operator)
        if operator in ("/", "//"):
            return self._replaced(text, at, name, value or "", everywhere=operator == "//")
        if operator in ("#", "##", "%", "%%"):
            pattern, at = self._raw(text, at, "}", name)
            return _trimmed(value or "", pattern, operator), at + 1
        other, at = self._until(text, at, "}")
        if at >= len(text):
            raise WordError(f"${{{name}: the brace is not closed")
        return self._chosen(name, value, operator, other), at + 1

    @staticmethod
    def _chosen(name: str, value: str | None, operator: str, other: str) -> str:
        there = bool(value) if operator[0] == ":" else value is not None
        match operator[-1]:
            case "-":
                return (value or "") if there else other
            case "+":
                return other if there else ""
        if not there:
            raise WordError(f"{name}: {quoted(other) or 'not allowed to be unset'}")
        return value or ""

    def _raw(self, text: str, at: int, stop: str, name: str) -> tuple[str, int]:
        """A pattern: variables in it are put in, escapes stay for it."""
        out = []
        while at < len(text) and text[at] not in stop:
            if text[at] == self.escape and at + 1 < len(text):
                out.append("\\" + text[at + 1])
                at += 2
            elif text[at] == "$":
                piece, at = self._dollar(text, at)
                out.append(piece)
            elif text[at] in "\"'":
                piece, at = self._piece(text, at)
                out.append(re.sub(r"([*?\\\[\]])", r"\\\1", piece.strip("\"'") if self.keep_quotes else piece))
            else:
                out.append(text[at])
                at += 1
        if at >= len(text):
            raise WordError(f"${{{name}: the brace is not closed")
        return "".join(out), at

    def _replaced(self, text: str, at: int, name: str, value: str, *, everywhere: bool) -> tuple[str, int]:
        pattern, at = self._raw(text, at, "/}", name)
        other = ""
        if text[at] == "/":
            other, at = self._until(text, at + 1, "}")
            if at >= len(text):
                raise WordError(f"${{{name}: the brace is not closed")
        if not pattern:
            return value, at + 1
        return _substituted(value, pattern, other, everywhere=everywhere), at + 1


def _tokens(pattern: str) -> list[str]:
    """A shell's pattern: "*" and "?" are what they are there, all else is itself, behind a backslash."""
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            out.append("\\" + pattern[at])
        elif char in "*?":
            if char == "?" or out[-1:] != ["*"]:
                out.append(char)
        else:
            out.append("\\" + char)
        at += 1
    return out


def _ends(tokens: list[str], value: str, start: int) -> list[int]:
    """Where in *value* a part that begins at *start* and fits can end; all ways at once, so that no pattern takes long."""
    found = []
    state = _closed({0}, tokens)
    for at in range(start, len(value) + 1):
        if len(tokens) in state:
            found.append(at)
        if at == len(value) or not state:
            break
        after = {
            n if tokens[n] == "*" else n + 1 for n in state if n < len(tokens) and tokens[n] in ("*", "?", "\\" + value[at])
        }
        state = _closed(after, tokens)
    return found


def _closed(state: set[int], tokens: list[str]) -> set[int]:
    out = set(state)
    for n in sorted(state):
        while n < len(tokens) and tokens[n] == "*":
            n += 1
            out.add(n)
    return out


def _check_cost(steps: int) -> None:
    if steps > COSTLY:
        raise WordError("the pattern is too costly for a value of this length")


def _trimmed(value: str, pattern: str, operator: str) -> str:
    """*value* without the shortest (one character) or longest (two) part of it that fits, at its beginning (#) or end (%)."""
    tokens = _tokens(pattern)
    _check_cost(len(value) * (len(tokens) + 1))
    if operator[0] == "%":
        tokens, value = tokens[::-1], value[::-1]
    ends = _ends(tokens, value, 0)
    if ends:
        value = value[ends[0 if len(operator) == 1 else -1] :]
    return value[::-1] if operator[0] == "%" else value


def _substituted(value: str, pattern: str, other: str, *, everywhere: bool) -> str:
    tokens = _tokens(pattern)
    _check_cost(len(value) ** 2 * (len(tokens) + 1) if "*" in tokens else len(value) * (len(tokens) + 1))
    out: list[str] = []
    size = at = 0
    while at < len(value):
        ends = _ends(tokens, value, at)
        if ends and ends[-1] > at:
            out.append(other)
            at = ends[-1]
            if not everywhere:
                break
        else:
            out.append(value[at])
            at += 1
        size += len(out[-1])
        if size > LONGEST:
            raise WordError(f"it becomes longer than {LONGEST} characters")
    return "".join(out) + value[at:]
