"""Which other nodes may mount volumes of this one: lines of ours in authorized_keys, each for one key and one volume."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from agent import files
from agent.contract.volume import Volume
from agent.paths import Paths


def write_authorized_keys(paths: Paths, volumes: Iterable[Volume]) -> None:
    """Make the lines of this instance those of *volumes*; lines of others stay as they are."""
    file = (Path.home() / ".ssh" / "authorized_keys").resolve()
    mark = f" pystack:{paths.tag or 'default'}:"
    wanted = [
        f'restrict,command="{_escaped(_command(paths, volume.name))}" {client.key}{mark}{volume.name}:{client.node}'
        for volume in volumes
        for client in volume.clients
        if client.key
    ]
    before = file.read_text().splitlines() if file.exists() else []
    after = [line for line in before if mark not in line] + wanted
    if after != before:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomically(file, "".join(f"{line}\n" for line in after).encode(), 0o600)


def _command(paths: Paths, volume: str) -> str:
    data = paths.volumes / volume / "_data"
    return shlex.join([sys.executable, "-E", "-s", "-m", "agent.volumes.export", os.fspath(data)])


def _escaped(command: str) -> str:
    return command.replace("\\", "\\\\").replace('"', '\\"')
