"""Every command, asked for its help."""

from __future__ import annotations

import subprocess
import sys
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


@pytest.mark.parametrize(("option", "warns"), [("--transport", False), ("--courier", True)])
def test_the_transport_has_a_former_name_that_warns(option: str, warns: bool) -> None:
    words = [sys.executable, "-m", "orchestrator", "lab", "up", "--nodes", "2", option, "local"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--transport local: with one node alone" in done.stderr
    assert ("--courier is now --transport: write --transport local" in done.stderr) is warns
