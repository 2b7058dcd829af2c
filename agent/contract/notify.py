"""Notices and their receivers: a part of config.yml."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal[
    "stack_degraded",
    "stack_healed",
    "rollout_failed",
    "run_failed",
    "backup_failed",
    "node_down",
    "node_up",
    "certificate_ends",
    "test",
]
"""The kinds of notices. `run_failed` is of jobs, schedules and hooks, `backup_failed` of volumes' backups and their trials."""


class Webhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A POST of JSON to *url*, signed with the content of the file *secret_file*. *events* are those that it gets, all if none
    are named."""

    url: str
    secret_file: str = ""
    events: tuple[Kind, ...] = ()

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise ValueError(f"notify.webhooks.url {self.url!r}: an http:// or https:// address")


class Mail(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mail by the server *host*, over TLS from the first byte (`tls`), after STARTTLS, or in the clear (`none`)."""

    host: str
    port: int = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password_file: str = ""
    sender: str
    recipients: tuple[str, ...]
    events: tuple[Kind, ...] = ()

    def __post_init__(self) -> None:
        if not self.recipients or not 0 < self.port < 1 << 16:
            raise ValueError("notify.mail: it needs recipients, and a port from 1 to 65535")


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program with its arguments: the notice is JSON on its standard input, and in the variables PYSTACK_NOTICE_*."""

    words: tuple[str, ...]
    events: tuple[Kind, ...] = ()

    def __post_init__(self) -> None:
        if not self.words or not self.words[0].startswith("/"):
            raise ValueError("notify.commands.words: the program's whole path, and arguments")


class NotifySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The receivers of the leader's notices. A stack, or a node, must be in trouble for *after_s* seconds."""

    webhooks: tuple[Webhook, ...] = ()
    mail: tuple[Mail, ...] = ()
    commands: tuple[Command, ...] = ()
    after_s: float = 15.0
    certificate_days: float = 14.0


class AuditLogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """*syslog* gets each line of the log of changes: `unix:///dev/log`, `udp://host:514` or `tcp://host:601`."""

    syslog: str = ""

    def __post_init__(self) -> None:
        if self.syslog and not self.syslog.startswith(("unix:///", "udp://", "tcp://")):
            raise ValueError(f"audit_log.syslog {self.syslog!r}: unix:///dev/log, udp://host:514 or tcp://host:601")
