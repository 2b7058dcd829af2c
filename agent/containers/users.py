"""`user:` resolved against the image's own /etc/passwd and /etc/group. Source: passwd(5), group(5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent import files
from agent.errors import BadRequestError

LIMIT = (1 << 31) - 1


class Identity(msgspec.Struct, frozen=True):
    """The user that a process runs as: numeric IDs, supplementary groups, home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def _rows(rootfs: Path, name: str, fields: int) -> list[list[str]]:
    rows = [line.split(":") for line in files.read_in_root(rootfs, name).splitlines() if not line.startswith("#")]
    return [row for row in rows if len(row) >= fields and _is_number(row[2])]


def _is_number(text: str) -> bool:
    """Digits of ASCII, and no more of them than an ID can have."""
    return text.isascii() and text.isdecimal() and len(text) <= 20


def _number(text: str, what: str) -> int:
    value = int(text)
    if value > LIMIT:
        raise BadRequestError(f"{what} {text} is out of range: at most {LIMIT}")
    return value


def resolve(rootfs: Path, user: str, group_add: Sequence[str] = ()) -> Identity:
    """`name|uid[:group|gid]`; the empty user is root. Raises BadRequestError for a name that the image does not have."""
    name, _, group = user.partition(":")
    passwd = _rows(rootfs, "/etc/passwd", 6)
    table = _rows(rootfs, "/etc/group", 4)
    row = next((r for r in passwd if r[0] == name), None) if name else None
    if row is None and (not name or _is_number(name)):
        row = next((r for r in passwd if int(r[2]) == int(name or 0)), None)
    if row:
        uid, gid, home = _number(row[2], "user"), _number(row[3], "group") if _is_number(row[3]) else 0, row[5] or "/"
    elif not name or _is_number(name):
        uid, gid, home = _number(name or "0", "user"), 0, "/"
    else:
        raise BadRequestError(f"unable to find user {name}: no matching entries in passwd file")

    def gid_of(text: str, unable: str = "unable") -> int:
        hit = next((r for r in table if r[0] == text), None)
        if hit:
            return _number(hit[2], "group")
        if _is_number(text):
            return _number(text, "group")
        raise BadRequestError(f"{unable} to find group {text}: no matching entries in group file")

    groups = [_number(r[2], "group") for r in table if row and row[0] in r[3].split(",")] if not group else []
    if group:
        gid = gid_of(group)
    groups += [gid_of(extra, "Unable") for extra in group_add]
    return Identity(uid, gid, tuple(dict.fromkeys([gid, *groups])), home)
