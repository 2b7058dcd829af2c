"""What is known of a repository that the cluster follows."""

from __future__ import annotations

from typing import Literal

import msgspec

from agent.contract.wire import WireStruct

Phase = Literal["new", "good", "failed", "waiting", "applying", "rolled back"]
LARGEST = 256 << 20
"""Bytes of a repository's newest tree, and of what is fetched of it, where nothing else is said."""


class Repo(WireStruct, frozen=True, kw_only=True):
    """A repository as it was added. *branch* "" is its default; *path* is a stack file, or the folder that has some. The names
    of secrets with what opens it: *key* (SSH), *token* (HTTPS), *webhook_secret*, *age_key* (encrypted files);
    *known_hosts* and *signers* are the files' texts. *webhook* is an address HOST:PORT of this server. *status_command* is run
    after each outcome."""

    name: str
    url: str
    branch: str = ""
    path: str = "."
    interval_s: float = 60.0
    targets: tuple[str, ...] = ()
    prune: bool = False
    approve: bool = False
    drift: Literal["repair", "report"] = "repair"
    paused: bool = False
    key: str = ""
    known_hosts: str = ""
    token: str = ""
    signers: str = ""
    webhook: str = ""
    webhook_secret: str = ""
    age_key: str = ""
    status_command: str = ""
    largest: int = LARGEST


class Commit(WireStruct, frozen=True, kw_only=True):
    """*author* is NAME <ADDRESS>, *date* RFC 3339."""

    id: str
    author: str
    date: str
    subject: str

    @property
    def short(self) -> str:
        return self.id[:12]


class SyncOutcome(WireStruct, frozen=True, kw_only=True):
    """What became of a commit. *plan* has a line a step; *stacks* are the revisions that it became."""

    commit: Commit
    phase: Phase
    at: str
    message: str = ""
    plan: tuple[str, ...] = ()
    stacks: dict[str, int] = {}


class SyncState(WireStruct, frozen=True, kw_only=True):
    """*newest* is the last commit that was seen, *good* the last that the cluster became. *problem* says why the remote cannot
    be followed, *drift* what differs from the good one, a line a step. *approved* is the commit that may be applied."""

    newest: SyncOutcome | None = None
    good: SyncOutcome | None = None
    problem: str = ""
    since: str = ""
    checked: str = ""
    drift: tuple[str, ...] = ()
    approved: str = ""
    history: tuple[SyncOutcome, ...] = ()


def encoded(value: WireStruct) -> bytes:
    return msgspec.json.encode(value)
