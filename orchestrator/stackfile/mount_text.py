r"""The short form of a mount, taken apart: what of it is a path of which kind.

A drive letter's colon is none that divides, so that files written for Docker Desktop on Windows are read as they were meant.
Source: Compose Specification, 05-services.md, "volumes", short syntax; Docker CLI reference, COMPOSE_CONVERT_WINDOWS_PATHS.
"""

from __future__ import annotations

import re

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def is_windows(path: str) -> bool:
    r"""C:\here, C:/here, \\server\share or \\.\pipe\name."""
    return bool(_DRIVE.match(path)) or path.startswith("\\\\")


def is_path(source: str) -> bool:
    """Whether *source* is a path of the host, and no volume's name."""
    return source.startswith(("/", ".", "~")) or is_windows(source)


def parts_of(text: str) -> list[str]:
    """*text* divided at its colons, but for those of drives. v:/data is a volume of one letter, c:/data:/data a drive."""
    out: list[str] = []
    at = 0
    while at <= len(text):
        drive = _DRIVE.match(text, at)
        if drive and not at and text[2] == "/" and not re.search(r":(?:/|[A-Za-z]:[\\/])", text[2:]):
            drive = None
        start = at + 2 if drive else at
        end = text.find(":", start)
        end = len(text) if end < 0 else end
        out.append(text[at:end])
        at = end + 1
    return out


def target_of(text: str) -> str:
    """Where a mount in short form goes."""
    parts = parts_of(text)
    return parts[1] if len(parts) > 1 else parts[0]


def converted(path: str) -> str:
    r"""C:\Users\me as /c/Users/me: COMPOSE_CONVERT_WINDOWS_PATHS. Any other path stays as it is."""
    if not _DRIVE.match(path):
        return path
    return f"/{path[0].lower()}/{path[3:]}".replace("\\", "/").rstrip("/")
