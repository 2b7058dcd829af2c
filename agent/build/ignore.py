"""`.dockerignore`: which paths of a build context are left out.

Pure. Source: Dockerfile reference, ".dockerignore file"; moby/patternmatcher's documented rules (Go's filepath.Match with `**`,
the last match decides, `!` takes back in; what holds for a directory holds for all below it).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence

from agent.contract.printable import quoted
from agent.errors import BadRequestError

MOST = 10_000
"""Patterns of a file."""
Match = Callable[[str], bool]


def read(text: str) -> list[str]:
    """Patterns as a file lists them: comments and blank lines left out, each path cleaned, no slash before it."""
    found = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        line = line.strip()
        if not line:
            continue
        inverted = line.startswith("!")
        line = line[1:].strip() if inverted else line
        if line:
            line = clean(line)
            line = line[1:] if len(line) > 1 and line.startswith("/") else line
        found.append(f"!{line}" if inverted else line)
    return found


def clean(path: str) -> str:
    """As Go's path.Clean: no `.`, no `..` that can be resolved, no slash twice."""
    path = posixpath.normpath(path)
    return f"/{path.lstrip('/')}" if path.startswith("//") else path


class Rules:
    """The patterns of a file, ready to be asked. Raises BadRequestError for one that is none, with its number."""

    def __init__(self, patterns: Sequence[str]) -> None:
        if len(patterns) > MOST:
            raise BadRequestError(f"more than {MOST} patterns in the ignore file")
        self.patterns = tuple(patterns)
        self._rules: list[tuple[Match, bool]] = []
        for number, pattern in enumerate(patterns, 1):
            pattern = pattern.strip()
            if not pattern:
                continue
            keeps = pattern.startswith("!")
            body = clean(pattern[1:]) if keeps and len(pattern) > 1 else clean(pattern)
            if keeps and len(pattern) == 1:
                raise BadRequestError(f'ignore pattern {number}: illegal exclusion pattern: "!"')
            try:
                self._rules.append((matcher(body), not keeps))
            except ValueError:
                raise BadRequestError(f"ignore pattern {number}: {quoted(pattern)!r}: syntax error in pattern") from None
        self.may_return = any(not ignored for _, ignored in self._rules)
        """Whether something below a directory that is left out can be taken back in."""
        self._known: dict[str, tuple[bool, ...]] = {"": (False,) * len(self._rules), ".": (False,) * len(self._rules)}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def ignores(self, path: str) -> bool:
        """Whether *path*, relative to the context, is left out: the last pattern that fits it, or a directory above it,
        says."""
        verdict = False
        for hit, (_, ignored) in zip(self._hits(path.strip("/")), self._rules, strict=True):
            if hit:
                verdict = ignored
        return verdict

    def _hits(self, path: str) -> tuple[bool, ...]:
        """Of each pattern, whether it fits *path* or a directory above it."""
        pending = []
        while path not in self._known:
            pending.append(path)
            path = path.rpartition("/")[0]
        hits = self._known[path]
        for one in reversed(pending):
            hits = tuple(hit or fits(one) for hit, (fits, _) in zip(hits, self._rules, strict=True))
            self._known[one] = hits
        return hits


def kept(paths: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those of *paths* that *patterns* leave in."""
    rules = Rules(patterns)
    return [path for path in paths if not rules.ignores(path)]


def matcher(pattern: str) -> Match:
    """Whether a path fits *pattern*. Raises ValueError for a malformed one."""
    _check(pattern)
    kind, expression = _translated(pattern)
    if kind == "exact":
        return lambda path: path == pattern
    if kind == "prefix":
        return lambda path: path.startswith(pattern[:-2])
    if kind == "suffix":
        suffix = pattern[2:]
        return lambda path: path.endswith(suffix) or (suffix.startswith("/") and path == suffix[1:])
    try:
        compiled = re.compile(expression, re.DOTALL)
    except (re.error, OverflowError) as error:
        raise ValueError(str(error)) from None
    return lambda path: compiled.fullmatch(path) is not None


def _translated(pattern: str) -> tuple[str, str]:
    """The kind of match, and the regular expression where it is one."""
    kind, out, at = "exact", "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            begins = at == 0
            at += 2
            at += pattern.startswith("/", at)
            if at >= len(pattern):
                if kind == "exact":
                    kind = "prefix"
                else:
                    kind, out = "regexp", out + ".*"
            else:
                kind, out = "regexp", out + "(?:.*/)?"
            kind = "suffix" if begins else kind
            continue
        if char == "*":
            kind, out = "regexp", out + "[^/]*"
        elif char == "?":
            kind, out = "regexp", out + "[^/]"
        elif char == "\\":
            at += 1
            kind, out = "regexp", out + re.escape(pattern[at])
        elif char == "[":
            end, group = _class(pattern, at)
            kind, out, at = "regexp", out + group, end - 1
        else:
            out += re.escape(char)
        at += 1
    return kind, out


def _class(pattern: str, at: int) -> tuple[int, str]:
    """A class of characters from its bracket on: where it ends, and its regular expression. Raises ValueError."""
    at += 1
    negated = pattern.startswith("^", at)
    at += negated
    parts: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not parts):
        low, at = _member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _member(pattern, at + 1)
        if high < low:
            raise ValueError(pattern)
        parts.append(f"{re.escape(low)}-{re.escape(high)}" if high != low else re.escape(low))
    if at >= len(pattern) or not parts:
        raise ValueError(pattern)
    return at + 1, f"(?!/)[{'^' if negated else ''}{''.join(parts)}]"


def _member(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "-]":
        raise ValueError(pattern)
    if pattern[at] == "\\":
        at += 1
        if at >= len(pattern):
            raise ValueError(pattern)
    return pattern[at], at + 1


def _check(pattern: str) -> None:
    """Raises ValueError where Go's filepath.Match would."""
    at = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
            if at >= len(pattern):
                raise ValueError(pattern)
        elif pattern[at] == "[":
            at = _class(pattern, at)[0] - 1
        at += 1
