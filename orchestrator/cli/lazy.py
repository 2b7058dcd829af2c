"""A click group that imports a command's module only when the command is named, and suggests the nearest name."""

from __future__ import annotations

import importlib
from typing import Any

import click


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
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but the UsageError for an unknown command suggests a near name."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)
