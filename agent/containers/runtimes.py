"""The OCI runtimes of a node by name: those that are installed, and those that its settings name.

Source: OCI Runtime Specification 1.0.2; Docker, daemon.json, `runtimes`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent import cgroups
from agent.errors import BadRequestError, RuntimeFailureError

SHIM = "io.containerd.runc.v2"
"""The name by which clients of containerd request a runtime that is a program: the node's own here."""


class Program(NamedTuple):
    """*arguments* precede its command. *kind* is "crun" or "runc", whose ways of starting are known, or "" for others."""

    name: str
    path: str
    arguments: Sequence[str] = ()
    kind: str = ""


def find(name: str) -> str | None:
    """The path of a program, in the folders of root's too."""
    return shutil.which(name) or next(
        (p for d in ("/usr/libexec/podman", "/usr/lib/podman", "/usr/sbin", "/sbin") if os.access(p := f"{d}/{name}", os.X_OK)),
        None,
    )


def program(name: str) -> str:
    """The path of program *name*. Raises RuntimeFailureError if it is not installed."""
    found = find(name)
    if not found:
        raise RuntimeFailureError(f"{name} is not installed: `apt-get install {name}`")
    return found


def known(own: str, settings: Mapping[str, Sequence[str]]) -> dict[str, Program]:
    """Every runtime that a container can ask for; *own* is the node's, *settings* has path and arguments by name."""
    out = {own: Program(own, program(own), (), own)}
    for name in ("runc", "crun"):
        # on a hybrid host crun needs the same preparation as the node's own
        if name not in out and (path := find(name)) and not (name == "crun" and cgroups.hybrid()):
            out[name] = Program(name, path, (), name)
    return out | {name: Program(name, words[0], tuple(words[1:])) for name, words in settings.items()}


def refuse(name: str, known: Mapping[str, Program]) -> None:
    """Raises BadRequestError for an unknown *name*."""
    if name not in known and name not in ("", SHIM):
        raise BadRequestError(
            f"unknown or invalid runtime name: {name}: there is {', '.join(sorted(known))}; `runtimes` in "
            "config.yml adds others"
        )
