"""Every command, asked for its help."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from orchestrator.cli import cli


def commands(command: click.Command = cli, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found
            yield from commands(found, (*words, name))


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_no_option_stands_for_two_things(words: tuple[str, ...]) -> None:
    """click warns of that, and of it alone, while it writes the help."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = CliRunner().invoke(cli, [*words, "--help"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.startswith("Usage: ")
