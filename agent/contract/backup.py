"""Backups of volumes: what a node is asked to do with a repository of restic's, and what comes of it."""

from __future__ import annotations

from typing import Literal

from agent.contract.wire import WireStruct

BackupVerb = Literal["backup", "snapshots", "restore", "verify", "forget"]
VARIABLES = ("AWS_", "AZURE_", "B2_", "GOOGLE_", "OS_", "RCLONE_", "ST_")
"""How the names of variables begin that credentials may set. Source: restic's documentation, Environment Variables."""
KEEP = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
"""The rules of what is kept. Source: restic-forget(1)."""


class Repository(WireStruct, frozen=True, kw_only=True):
    """A repository, and what opens it. *place* is in restic's words: a folder of the node, `sftp:USER@HOST:/PATH`,
    `s3:https://HOST/BUCKET`, `rclone:REMOTE:PATH`. It is encrypted by *password*. The other fields are the contents of
    files; *credentials* has a NAME=VALUE a line."""

    place: str
    password: bytes
    credentials: bytes = b""
    ssh_key: bytes = b""
    known_hosts: bytes = b""
    rclone: bytes = b""


class BackupOrder(WireStruct, frozen=True, kw_only=True):
    """What a node does for *volume*, whose snapshots stand in the repository under the host name *owner*.

    backup makes one, while the containers *paused* stand still; forget drops what *keep* (rule, number) does not hold, and
    frees its room. restore brings *snapshot* into the data that arrive for *volume* (see `agent.volumes.migration`); verify
    does the same to the side, compares, and deletes it."""

    verb: BackupVerb
    repository: Repository
    owner: str
    volume: str = ""
    snapshot: str = "latest"
    paused: tuple[str, ...] = ()
    keep: tuple[tuple[str, int], ...] = ()


class Snapshot(WireStruct, frozen=True, kw_only=True):
    """A snapshot: *time* in RFC 3339, *node* is where it was made."""

    id: str
    time: str
    node: str = ""


class BackupReport(WireStruct, frozen=True, kw_only=True):
    """What came of an order: *files* and *bytes* that were looked at, of which *added* bytes are new in the repository."""

    snapshot: str = ""
    files: int = 0
    bytes: int = 0
    added: int = 0
    snapshots: tuple[Snapshot, ...] = ()
