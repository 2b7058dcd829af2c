"""The files that COPY and ADD take from a tree, chosen from a list of its entries.

Pure. Source: Dockerfile reference, "COPY", "Pattern matching", "COPY --parents", "COPY --exclude"; Go's filepath.Match.
"""

from __future__ import annotations

import bisect
import hashlib
import posixpath
import re
from collections.abc import Mapping, Sequence

import msgspec

from agent.build.ignore import Rules, clean, matcher
from agent.contract.printable import quoted
from agent.errors import BadRequestError
from agent.trees.paths import Step, follow, parts_of


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One path of a listing. *kind* is f, d, l or o (a FIFO, a device); *content* is the digest of a file or the target of a
    link."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    content: str = ""


class Pick(msgspec.Struct, frozen=True):
    """*source*, a path of the tree ("" is its root), is copied to the absolute path *goal*, or *into* that directory. A
    directory is copied with its content except for *without*, paths below it; *above* are directories to create first, with
    their modes."""

    source: str
    goal: str
    into: bool
    without: tuple[str, ...] = ()
    above: tuple[tuple[str, int], ...] = ()


class Listing:
    """The entries of a tree by their paths, which are relative, without a leading slash."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = dict(entries)
        self._sorted = sorted(self.entries)

    def below(self, path: str) -> list[str]:
        """All paths below the directory *path*, sorted."""
        if not path:
            return self._sorted
        prefix = f"{path}/"
        begin = bisect.bisect_left(self._sorted, prefix)
        end = bisect.bisect_left(self._sorted, f"{path}0")  # 0 comes after /
        return self._sorted[begin:end]

    def resolve(self, path: str) -> str | None:
        """Where *path* leads, links followed inside the tree; None if nothing is."""

        def look(step: str) -> Step | None:
            entry = self.entries.get(step)
            return None if entry is None else Step(entry.kind == "d", entry.content if entry.kind == "l" else "")

        return follow(path, look)

    def kind(self, path: str) -> str:
        """The kind of the entry *path*, as in `Entry`; the root is a directory."""
        return self.entries[path].kind if path else "d"


def is_pattern(source: str) -> bool:
    """Whether *source* is a pattern of names."""
    return any(char in source for char in "*?[")


def narrowed(source: str) -> str:
    """The part of *source* before its first pattern: all that has to be looked at lies there."""
    parts = parts_of(clean(f"/{_literal(source)}")) if not is_pattern(source) else parts_of(source)
    plain: list[str] = []
    for part in parts:
        if is_pattern(part):
            break
        plain.append(part)
    return "/".join(plain)


def _literal(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


class MissingError(BadRequestError):
    """A source that is not there."""


def choose(
    listing: Listing,
    sources: Sequence[str],
    goal: str,
    *,
    parents: bool = False,
    excludes: Sequence[str] = (),
    ignored: Rules | None = None,
) -> list[Pick]:
    """What *sources* are, and where each goes; *goal* is absolute. Raises MissingError, BadRequestError."""
    rules = Rules(excludes)
    picks: list[Pick] = []
    into = goal.endswith("/") or len(sources) > 1
    for source in sources:
        pivot, _, inner = source.partition("/./") if parents and "/./" in source else ("", "", source)
        whole = f"{pivot}/{inner}" if pivot else inner
        found = _found(listing, whole, ignored)
        for path in found:
            if rules and path and (rules.ignores(path) or rules.ignores(posixpath.basename(path))):
                continue
            where = listing.resolve(path)
            if where is None:
                raise MissingError(f"file not found: {quoted(path)} is a link that leads to nothing")
            without = _without(listing, where, rules, ignored)
            if parents:
                picks.append(_with_parents(listing, path, where, goal, pivot, without))
            elif listing.kind(where) == "d":
                picks.append(Pick(where, goal, False, without))
            else:
                name = posixpath.basename(path)
                picks.append(Pick(where, posixpath.join(goal, name) if into else goal, not into, without))
    return picks


def _found(listing: Listing, source: str, ignored: Rules | None) -> list[str]:
    if not is_pattern(source):
        path = clean(f"/{_literal(source)}").strip("/")
        where = listing.resolve(path)
        if where is None or (ignored and where and ignored.ignores(where) and not _some_kept(listing, where, ignored)):
            raise MissingError(
                f"file not found in build context or excluded by .dockerignore: stat {quoted(source)}: file does not exist"
            )
        return [path]
    try:
        fits = matcher("/".join(parts_of(source)))
    except ValueError:
        raise BadRequestError(f"{quoted(source)!r}: syntax error in pattern") from None
    return [path for path in listing.below("") if fits(path) and not (ignored and ignored.ignores(path))]


def _some_kept(listing: Listing, where: str, ignored: Rules) -> bool:
    return listing.kind(where) == "d" and ignored.may_return and any(not ignored.ignores(p) for p in listing.below(where))


def _without(listing: Listing, where: str, rules: Rules, ignored: Rules | None) -> tuple[str, ...]:
    """Paths below the directory *where* that stay out; what stays out as a whole is named once."""
    if listing.kind(where) != "d" or not (rules or ignored):
        return ()
    out: list[str] = []
    skip = len(where) + 1 if where else 0
    dropped = ""
    paths = listing.below(where)
    kept = {""}
    for path in paths:
        if not (rules and rules.ignores(path[skip:])) and not (ignored and ignored.ignores(path)):
            above = path
            while above not in kept:
                kept.add(above)
                above = above.rpartition("/")[0]
    for path in paths:
        if path in kept or (dropped and path.startswith(dropped)):
            continue
        out.append(path[skip:])
        dropped = f"{path}/"
    return tuple(out)


def _with_parents(listing: Listing, path: str, where: str, goal: str, pivot: str, without: tuple[str, ...]) -> Pick:
    kept = path[len("/".join(parts_of(pivot))) :].strip("/") if pivot else path
    above = []
    walked = path[: len(path) - len(kept)].strip("/") if kept else path
    for part in parts_of(posixpath.dirname(kept)):
        walked = f"{walked}/{part}" if walked else part
        entry = listing.entries.get(listing.resolve(walked) or "")
        mode = entry.mode if entry and entry.kind == "d" else 0o755
        relative = walked[len(path) - len(kept) :].strip("/")
        above.append((posixpath.join(goal, relative), mode))
    return Pick(where, posixpath.join(goal, kept) if kept else goal, False, without, tuple(above))


def digest(listing: Listing, picks: Sequence[Pick], *, owners: bool) -> str:
    """What *picks* are made of: names, kinds, modes, contents, and *owners* where those count. Times do not."""
    out = hashlib.sha256()
    for pick in picks:
        skip = len(pick.source) + 1 if pick.source else 0
        gone = tuple(f"{w}/" for w in pick.without)
        dropped = set(pick.without)
        _feed(out, "\0pick", pick.goal, str(pick.into), str(pick.above))
        if pick.source and (top := listing.entries.get(pick.source)):
            _entry(out, "", top, owners)
        if listing.kind(pick.source) != "d":
            continue
        for path in listing.below(pick.source):
            relative = path[skip:]
            if relative not in dropped and not relative.startswith(gone):
                _entry(out, relative, listing.entries[path], owners)
    return out.hexdigest()


def _entry(out: hashlib._Hash, name: str, entry: Entry, owners: bool) -> None:
    owner = f"{entry.uid}:{entry.gid}" if owners else ""
    _feed(out, name, entry.kind, f"{entry.mode:o}", owner, entry.content)


def _feed(out: hashlib._Hash, *words: str) -> None:
    for word in words:
        data = word.encode("utf-8", "surrogateescape")
        out.update(len(data).to_bytes(8, "big") + data)
