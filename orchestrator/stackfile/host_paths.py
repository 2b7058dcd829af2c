"""Paths of the client, made absolute as they are written: a link in them stays one, so that a project in
`current -> releases/7` is called `current`, and what it mounts follows the link.

Source: Go's os.Getwd and path/filepath.Abs, which Docker Compose takes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def working_directory() -> Path:
    """Where the shell says that it is, if it is there; else the folder itself."""
    shell = Path(os.environ.get("PWD", ""))
    with contextlib.suppress(OSError):
        if shell.is_absolute() and shell.samefile("."):
            return Path(os.path.normpath(shell))
    return Path.cwd()


def absolute_path(text: str | Path, directory: Path | None = None) -> Path:
    """*text*, ~ put in, below *directory*, or the working directory where there is none."""
    place = directory if directory and directory.is_absolute() else working_directory() / (directory or "")
    return Path(os.path.normpath(place / Path(text).expanduser()))
