"""A build's context on its way to a node that may have most of it from an earlier build.

The client lists its files, each with a mark: a word that changes when the file does. The node answers which it lacks.
"""

from __future__ import annotations

from agent.contract.wire import WireStruct


class ContextOffer(WireStruct, frozen=True, kw_only=True):
    """The files of a client's folder, (path, mark). *key* is the same for the same folder of the same client."""

    key: str
    files: tuple[tuple[str, str], ...]


class ContextAnswer(WireStruct, frozen=True, kw_only=True):
    """*id* names the context in what follows. The node lacks the files at the places *missing* of the list; of those in
    *doubtful* (place, digest), it has one of the same name, whose SHA-256 and octal mode the digest is. *gone*: it has files
    that the list has not."""

    id: str
    missing: tuple[int, ...]
    doubtful: tuple[tuple[int, str], ...]
    gone: bool = False
