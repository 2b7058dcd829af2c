"""`stack.lock`: which content each image of a stack has, by platform. Written by `pystack lock`, read beside the stack file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from agent.contract.trust import Locked
from orchestrator.stackfile.problem import Mark, Problem, StackFileError

NAME = "stack.lock"
VERSION = 1
_DIGEST = r"sha256:[0-9a-f]{64}"
_HEAD = "# Which content each image has. Written by `pystack lock`; `pystack up --locked` refuses any other.\n"


def path_in(directory: Path) -> Path:
    """Where the lock of a stack lies whose file is in *directory*."""
    return directory / NAME


def read(directory: Path) -> tuple[Locked, ...] | None:
    """The entries of the lock in *directory*; None where there is none. Raises StackFileError."""
    path = path_in(directory)

    def fail(why: str) -> StackFileError:
        fix = "`pystack lock` writes a new one"
        return StackFileError([Problem(where=Mark(str(path), 0, 0), what="the lock cannot be read", why=why, fix=fix)])

    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise fail(str(error)) from None
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise fail(" ".join(str(error).split())) from None
    if not isinstance(document, dict) or document.get("version") != VERSION or not isinstance(document.get("images"), dict):
        raise fail(f"it must have version: {VERSION} and images:")
    entries = []
    for image, platforms in document["images"].items():
        digests = platforms.items() if isinstance(platforms, dict) else ()
        if not digests or not all(isinstance(k, str) and isinstance(v, str) and re.fullmatch(_DIGEST, v) for k, v in digests):
            raise fail(f"images.{image}: must be OS/ARCH: sha256:… for each platform")
        entries.append(Locked(image=str(image), digests=tuple(sorted(digests))))
    return tuple(entries)


def text_of(entries: Iterable[Locked]) -> str:
    """The lock's file for *entries*: the same entries are the same text."""
    lines = [f"version: {VERSION}", "images:"]
    for entry in sorted(entries, key=lambda e: e.image):
        lines.append(f"  {_quoted(entry.image)}:")
        lines += [f"    {_quoted(platform)}: {digest}" for platform, digest in sorted(entry.digests)]
    return _HEAD + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return yaml.safe_dump(text, default_style='"', width=1 << 20).strip()
