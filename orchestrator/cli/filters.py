"""The values of `--filter` that `ps` and `ls` take."""

from __future__ import annotations

import click


def states_of(filters: tuple[str, ...]) -> tuple[str, ...]:
    """The states that `--filter status=STATE` asks for. Raises UsageError."""
    if strange := [f for f in filters if not f.startswith("status=")]:
        raise click.UsageError(f"--filter {strange[0]}: write status=STATE")
    return tuple(f.partition("=")[2] for f in filters)


def name_parts_of(filters: tuple[str, ...]) -> tuple[str, ...]:
    """The parts that `--filter name=PART` asks a name for. Raises UsageError if a filter has another form."""
    if strange := [f for f in filters if not f.startswith("name=")]:
        raise click.UsageError(f"--filter {strange[0]}: write name=PART")
    return tuple(f.partition("=")[2] for f in filters)
