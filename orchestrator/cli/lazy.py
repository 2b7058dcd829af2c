"""A click group that imports a command's module only when the command is named, and suggests the nearest name; and help of
whole sentences, in groups, with examples."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """*commands_from* maps names to modules of this package; the module has the command under its own name."""

    def __init__(self, *args: Any, commands_from: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._modules = commands_from or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, those of modules that are not imported yet included."""
        return sorted({*self._modules, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command *cmd_name*; its module is imported now. None if it does not exist."""
        if cmd_name not in self._modules:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"orchestrator.cli.{self._modules[cmd_name]}")
        attribute = cmd_name.replace("-", "_")
        command = getattr(module, f"{attribute}_", None) or getattr(module, attribute)
        assert isinstance(command, click.Command)
        return dress(command)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but the UsageError for an unknown command suggests a near name."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands, of which no module is imported; hidden ones included."""
        from click.shell_completion import CompletionItem

        if incomplete and not incomplete[0].isalnum():
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name) for name in self.list_commands(ctx) if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by their groups, each with its whole first sentence."""
        from orchestrator.cli.groups import GROUPS, OTHERS, group_of

        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in (*GROUPS, OTHERS)}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command and not command.hidden:
                rows[group_of(name)].append((name, first_sentence(command)))
        for group, lines in rows.items():
            if lines:
                order = GROUPS.get(group, ())
                with formatter.section(group):
                    formatter.write_dl(sorted(lines, key=lambda line: order.index(line[0]) if line[0] in order else 0))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples."""
        write_examples(ctx, formatter)


def first_sentence(command: click.Command) -> str:
    """What *command* does, in its help's first sentence, whole."""
    text = " ".join((command.help or "").split("\n\n")[0].split())
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]


def write_examples(context: click.Context, formatter: click.HelpFormatter) -> None:
    """The examples of the command of *context*, one a line."""
    from orchestrator.cli.groups import EXAMPLES

    path = " ".join(words_of(context))
    if lines := EXAMPLES.get(path):
        with formatter.section("Examples"):
            for line in lines:
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def words_of(context: click.Context) -> list[str]:
    """The words that name the command of *context*, the program's own left out."""
    words: list[str] = []
    at: click.Context | None = context
    while at is not None and at.parent is not None:
        words.insert(0, at.info_name or "")
        at = at.parent
    return words


def dress(command: click.Command) -> click.Command:
    """*command* and those below it, with help that cuts no line and has examples. Returns *command*."""
    if command.__dict__.get("format_epilog"):
        return command
    command.format_epilog = lambda ctx, formatter: write_examples(ctx, formatter)  # type: ignore[method-assign]
    if isinstance(command, click.Group) and not isinstance(command, LazyGroup):
        command.format_commands = lambda ctx, formatter: _whole_lines(command, ctx, formatter)  # type: ignore[method-assign]
        for below in command.commands.values():
            dress(below)
    return command


def _whole_lines(group: click.Group, context: click.Context, formatter: click.HelpFormatter) -> None:
    rows = [(n, group.get_command(context, n)) for n in group.list_commands(context)]
    with formatter.section("Commands"):
        formatter.write_dl([(name, first_sentence(command)) for name, command in rows if command and not command.hidden])
