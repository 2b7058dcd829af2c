"""Small files of the project that go along with a stack (decision 0012)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.stackfile.load import Loaded
    from orchestrator.stackfile.model import Stack


def inline_project_files(client: Client, loaded: Loaded) -> Stack:
    """The stack for the server, with the project's small files that it mounts where there are other nodes than this host."""
    from orchestrator.cli.rows import nodes
    from orchestrator.stackfile.inline_files import has_inlinable_mounts, inline_bind_mounts

    if not has_inlinable_mounts(loaded.stack, loaded.directory) or len(nodes(client)) < 2:
        return loaded.stack
    stack, notes = inline_bind_mounts(loaded.stack, loaded.directory)
    for line in notes:
        click.echo(line, err=True)
    return stack


def enforce_lock(loaded: Loaded) -> Loaded:
    """*loaded*, whose images must be as its lock says. Raises PystackError where it has none."""
    import msgspec

    from orchestrator.errors import PystackError
    from orchestrator.stackfile.lock import path_in

    if loaded.stack.lock is None:
        raise PystackError(f"{path_in(loaded.directory)} does not exist: `pystack lock` writes it")
    return msgspec.structs.replace(loaded, stack=msgspec.structs.replace(loaded.stack, lock_enforced=True))
