"""Small files of the project that go along with a stack (decision 0012)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import global_option, is_compose, is_set

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.stackfile.load import Loaded
    from orchestrator.stackfile.model import Stack


def with_project_labels(loaded: Loaded) -> Stack:
    """The stack, whose containers say where they come from in Docker Compose's labels, by which tools find the project, and
    have the names that --compatibility asks for."""
    import msgspec

    from agent.contract.project_labels import COMPOSE
    from orchestrator.stackfile.host_paths import absolute_path
    from orchestrator.stackfile.stable import SLOT

    same = {
        "project.config_files": ",".join(str(absolute_path(path)) for path, _ in loaded.opened),
        "project.working_dir": str(loaded.directory),
        "project.environment_file": ",".join(loaded.env_files),
        "version": COMPOSE,
    }
    joined_by_underscores = is_compose() and bool(global_option("compatibility") or is_set("COMPOSE_COMPATIBILITY"))
    services = []
    for one in loaded.stack.services:
        needs = ",".join(f"{d.service}:{d.condition}:{str(d.restart).lower()}" for d in one.depends_on)
        origin = tuple((f"com.docker.compose.{k}", v) for k, v in same.items() if v)
        origin += (("com.docker.compose.depends_on", needs),)  # empty, too: tools read it
        # as Docker Compose of old, and the later ones with --compatibility, call containers
        called = one.container_name or (f"{loaded.stack.name}_{one.name}_{SLOT}" if joined_by_underscores else "")
        container = msgspec.structs.replace(one.container, origin=origin)
        services.append(msgspec.structs.replace(one, container=container, container_name=called))
    return msgspec.structs.replace(loaded.stack, services=tuple(services))


def inline_project_files(client: Client, loaded: Loaded) -> Stack:
    """The stack for the server, with the project's small files that it mounts where there are other nodes than this host."""
    from orchestrator.cli.rows import nodes
    from orchestrator.stackfile.inline_files import has_inlinable_mounts, inline_bind_mounts

    stack = with_project_labels(loaded)
    if not has_inlinable_mounts(stack, loaded.directory) or len(nodes(client)) < 2:
        return stack
    stack, notes = inline_bind_mounts(stack, loaded.directory)
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
