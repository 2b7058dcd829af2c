"""Help: whole sentences in groups, topics, examples that are what the commands take, pages of man."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator.cli import COMMANDS, cli
from orchestrator.cli.groups import EXAMPLES, GROUPS, group_of
from orchestrator.cli.help import TOPICS

ROOT = Path(__file__).parents[2]


def pystack(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """All that are shown, by their words."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if command.hidden:
            continue
        yield name, command
        if isinstance(command, click.Group) and name != "compose":
            below = click.Context(command, parent=context, info_name=name)
            yield from ((f"{name} {words}", found) for words, found in commands(command, below))


EVERY = dict(commands(cli, click.Context(cli, info_name="pystack")))


def test_each_command_has_its_group_and_none_is_invented() -> None:
    assert {name for names in GROUPS.values() for name in names} <= set(COMMANDS)
    assert len({name for names in GROUPS.values() for name in names}) == sum(map(len, GROUPS.values()))
    assert group_of("no-such-command") == "More"


def test_every_command_says_what_it_does() -> None:
    assert [words for words, command in EVERY.items() if not (command.help or "").strip()] == []


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_no_line_of_the_overview_is_cut(columns: str) -> None:
    said = pystack("--help", COLUMNS=columns).stdout
    assert "..." not in said.split("\n", 1)[1]
    for group in GROUPS:
        assert f"\n{group}:\n" in said
    assert "\nExamples:\n  pystack plan\n" in said


@pytest.mark.parametrize(("path", "line"), [(path, line) for path, lines in EXAMPLES.items() for line in lines])
def test_examples_are_what_commands_take(path: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("next.plan", "docker-compose.yml", "images.tar", "password.txt", "cluster.backup"):
        (tmp_path / name).touch()
    words = shlex.split(re.split(r" [<>|] ", line)[0])
    assert words[0] == "pystack"
    context: click.Context = cli.make_context("pystack", words[1:])
    command: click.Command = cli
    rest = [*context._protected_args, *context.args]
    while isinstance(command, click.Group) and rest:
        _, found, rest = command.resolve_command(context, rest)
        assert found
        command, context = found, found.make_context(found.name, list(rest), parent=context)
        rest = [*getattr(context, "_protected_args", ()), *context.args]
    assert path == "" or EVERY[path].name == command.name
    at: click.Context | None = context
    while at:
        at.close()
        at = at.parent


@pytest.mark.parametrize("topic", TOPICS)
def test_topics_are_told(topic: str) -> None:
    done = pystack("help", topic)
    assert (done.returncode, done.stdout) == (0, TOPICS[topic])
    assert all(len(line) <= 150 for line in done.stdout.splitlines())


def test_help_of_a_command_is_its_own_help() -> None:
    assert pystack("help", "node", "add").stdout.splitlines()[1:] == pystack("node", "add", "--help").stdout.splitlines()[1:]
    wrong = pystack("help", "nothing")
    assert wrong.returncode == 2
    assert "topics: states, errors, formats" in wrong.stderr


def test_colours_are_for_terminals_and_for_those_who_want_them() -> None:
    bad = "doctor", "--host", "--all"
    coloured = pystack("--ansi", "always", *bad).stdout
    assert "\x1b[" in coloured
    assert "\x1b[" not in pystack(*bad).stdout
    assert "\x1b[" not in pystack("--ansi=never", *bad).stdout
    script = shlex.join([sys.executable, "-m", "orchestrator", *bad])
    for environment, wanted in (({}, True), ({"NO_COLOR": "1"}, False)):
        shown = subprocess.run(
            ["script", "-qec", script, "/dev/null"],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        ).stdout
        assert ("\x1b[3" in shown) is wanted


def test_man_pages_are_what_mandoc_takes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "packaging/man.py", str(tmp_path)], cwd=ROOT, check=True)
    pages = sorted(tmp_path.glob("*.1"))
    top = [words for words in EVERY if " " not in words]
    assert [page.name for page in pages] == sorted(["pystack.1", *(f"pystack-{name}.1" for name in top)])
    assert "\\-\\-remove\\-orphans" in (tmp_path / "pystack-up.1").read_text()
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    said = subprocess.run(["mandoc", "-T", "lint", "-W", "error", *pages], capture_output=True, text=True, check=False).stdout
    assert said == ""
