"""Writes the man pages of all commands: `man.py FOLDER`. One page a top-level command, pystack-NAME(1), and pystack(1).

Source: man(7).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import click  # noqa: E402

from agent.contract.version import VERSION  # noqa: E402
from orchestrator.cli import cli  # noqa: E402
from orchestrator.cli.groups import EXAMPLES, GROUPS, OTHERS, group_of  # noqa: E402
from orchestrator.cli.help import TOPICS  # noqa: E402
from orchestrator.cli.lazy import first_sentence  # noqa: E402


def escaped(text: str) -> str:
    """*text* with nothing in it that troff takes for a request."""
    return re.sub(r"^([.'])", r"\\&\1", text.replace("\\", "\\e").replace("-", "\\-"), flags=re.M)


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    """A paragraph for each option that help shows."""
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option):
            yield f".TP\n\\fB{escaped(record[0])}\\fR\n{escaped(record[1])}"


def described(command: click.Command, context: click.Context, path: str) -> Iterator[str]:
    """Synopsis, text, options and examples of one command, and of those below it."""
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f".PP\n\\fBpystack {escaped(path)}\\fR {escaped(pieces)}"
    for paragraph in (command.help or "").split("\n\n"):
        yield f".PP\n{escaped(' '.join(paragraph.split()))}"
    yield from options(command, context)
    if path in EXAMPLES:
        yield ".PP\nExamples:\n.PP\n.EX\n" + "\n".join(escaped(line) for line in EXAMPLES[path]) + "\n.EE"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below and not below.hidden:
                yield f".SH {escaped(f'{path} {name}').upper()}"
                yield from described(below, click.Context(below, parent=context, info_name=name), f"{path} {name}")


def page(name: str, what: str, body: Iterator[str]) -> str:
    """A whole page."""
    head = f'.TH {name.upper().replace("-", chr(92) + "-")} 1 "" "pystack {VERSION}" "pystack manual"'
    return "\n".join([head, f".SH NAME\n{escaped(name)} \\- {escaped(what)}", ".SH DESCRIPTION", *body]) + "\n"


def overview(context: click.Context) -> Iterator[str]:
    """The body of pystack(1): options, commands by group, topics."""
    yield f".PP\n{escaped(' '.join((cli.help or '').split()))}"
    yield ".SH OPTIONS"
    yield from options(cli, context)
    rows: dict[str, list[str]] = {}
    for name in cli.list_commands(context):
        if (command := cli.get_command(context, name)) and not command.hidden:
            line = f".TP\n\\fBpystack\\-{escaped(name)}\\fR(1)\n{escaped(first_sentence(command))}"
            rows.setdefault(group_of(name), []).append(line)
    for group in (*GROUPS, OTHERS):
        if group in rows:
            yield f".SH {group.upper()}"
            yield from rows[group]
    for topic, text in TOPICS.items():
        yield f".SH {topic.upper()}\n.EX\n{escaped(text.rstrip())}\n.EE"


def main(target: Path) -> None:
    """Empty *target* and fill it."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.1"):
        old.unlink()
    context = click.Context(cli, info_name="pystack")
    what = "stacks of containers from Compose files, on one host or many"
    (target / "pystack.1").write_text(page("pystack", what, overview(context)))
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if command and not command.hidden:
            text = page(
                f"pystack-{name}",
                first_sentence(command).rstrip("."),
                described(command, click.Context(command, parent=context, info_name=name), name),
            )
            (target / f"pystack-{name}.1").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
