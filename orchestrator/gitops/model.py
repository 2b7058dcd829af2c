"""A repository that the cluster follows, and the state of it: records in the store and in the API."""

from __future__ import annotations

from typing import Literal

import msgspec

from agent.contract.wire import WireStruct

Phase = Literal["new", "good", "failed", "waiting", "applying", "rolled back", "expired"]
LARGEST = 256 << 20
"""Default limit, in bytes, of a commit's files, and of a fetch."""


class Preview(WireStruct, frozen=True, kw_only=True):
    """What a repository is a preview *of*: *slug* stands for its branch in names, *host* is how its hosts are called."""

    of: str
    slug: str
    host: str = ""


class Repo(WireStruct, frozen=True, kw_only=True):
    """A repository as it was added. *branch* "" is the repository's default branch; *path* is a stack file, or a folder of
    them. *key* (SSH), *token* (HTTPS), *webhook_secret* and *age_key* (encrypted files) name secrets; *known_hosts* and
    *signers* are the texts of those files. *webhook* is an address HOST:PORT of this server. *status_command* runs after each
    outcome. *largest* is a limit in bytes. Branches that match one of *previews* (`*` and `?` as in a shell) have a stack each,
    whose hosts are called *preview_host*, until their newest commit is older than *preview_ttl_s*, 0 for never; *preview* says
    which of them this one is."""

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
    previews: tuple[str, ...] = ()
    preview_host: str = ""
    preview_ttl_s: float = 0.0
    preview: Preview | None = None

    @property
    def suffix(self) -> str:
        """What the names of a preview's stacks end with, "" if it is none."""
        return self.preview.slug if self.preview else ""


class Commit(WireStruct, frozen=True, kw_only=True):
    """*id* is the hash, *author* is NAME <ADDRESS>, *date* is RFC 3339."""

    id: str
    author: str
    date: str
    subject: str

    @property
    def short(self) -> str:
        """The first 12 digits of the hash, for people."""
        return self.id[:12]


class SyncOutcome(WireStruct, frozen=True, kw_only=True):
    """The outcome of a commit, at the time *at* (RFC 3339). *plan* has one line a step; *stacks* maps each of its stacks to the
    revision that it became, 0 while it is applied."""

    commit: Commit
    phase: Phase
    at: str
    message: str = ""
    plan: tuple[str, ...] = ()
    stacks: dict[str, int] = msgspec.field(default_factory=dict)


class SyncState(WireStruct, frozen=True, kw_only=True):
    """*newest* is the last commit that was seen, *good* the last that was applied successfully. *problem* says why the remote
    cannot be followed, and *since* when that began; *checked* is the time of the last fetch. *drift* has one line for each
    difference from the good commit. *approved* is the hash of the commit that may be applied. *history*: oldest first."""

    newest: SyncOutcome | None = None
    good: SyncOutcome | None = None
    problem: str = ""
    since: str = ""
    checked: str = ""
    drift: tuple[str, ...] = ()
    approved: str = ""
    history: tuple[SyncOutcome, ...] = ()


def encoded(value: WireStruct) -> bytes:
    """*value* as it is stored: JSON."""
    return msgspec.json.encode(value)
