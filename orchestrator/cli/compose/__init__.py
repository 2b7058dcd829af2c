"""`pystack compose`: the command lines of `docker compose`, for scripts that have them, and its own words in the answers.

Each verb is pystack's own, with Docker Compose's options (`reference`); where options, output or behaviour are others than
pystack's, the verb is one of `verbs`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import click

from orchestrator.cli.compose import pretend, reference
from orchestrator.cli.flags import ValuedFlags
from orchestrator.cli.options import NAMES, StackOptions, global_option, selects_stack

LOOKING = ("attach", "events", "images", "logs", "ls", "port", "ps", "stats", "top", "version", "volumes", "wait")
"""Verbs that change nothing: they do under --dry-run what they do without."""
PLANNED = ("up", "create", "config", "publish", "watch")
"""Verbs that see to it themselves."""
ALSO: dict[str, dict[str, tuple[str, ...]]] = {
    "commit": {"pause": ("-p",)},
    "exec": {"no_tty": ("--no-TTY",)},
    "run": {"publish": ("-p",), "no_tty": ("--no-TTY",), "label": ("--labels",), "volume": ("--volumes",)},
}
"""Further names of options, by verb and option: short ones that pystack's own verbs have for something else, and those that
Docker Compose takes for the same."""


def native(verb: str) -> click.Command:
    """pystack's own command of that name."""
    from orchestrator.cli import COMMANDS

    module = importlib.import_module(f"orchestrator.cli.{COMMANDS[verb]}")
    command = getattr(module, f"{verb}_", None) or getattr(module, verb)
    assert isinstance(command, click.Command)
    return command


def refusing(option: str, why: str) -> click.Option:
    """An option that is known, and not to be had."""
    names, value = reference.words(option)

    def refuse(context: click.Context, parameter: click.Parameter, given: Any) -> None:
        if given:
            raise click.UsageError(f"{names[-1]} is {why}", context)

    return click.Option(list(names), is_flag=not value, callback=refuse, expose_value=False, hidden=True)


def taking(option: str) -> click.Option:
    """An option that is known, and changes nothing."""
    names, value = reference.words(option)
    return click.Option(list(names), is_flag=not value, multiple=value, expose_value=False, hidden=True)


def made(verb: str) -> click.Command:
    """The command *verb* as Docker Compose has it; "alpha viz" is a verb below another."""
    from orchestrator.cli.compose import alpha, verbs

    name = verb.removeprefix("alpha ")
    base = (alpha.VERBS.get(name) if name != verb else None) or verbs.OWN.get(name) or native(name)
    parameters: list[click.Parameter] = []
    for parameter in base.params:
        if parameter.name in NAMES:
            continue  # they stand before the verb
        if more := ALSO.get(name, {}).get(parameter.name or ""):
            parameter = _also(parameter, more)
        parameters.append(parameter)
    there = {option for parameter in parameters for option in parameter.opts}
    for option, why in reference.VERBS[verb].items():
        if why.startswith("refused"):
            parameters.append(refusing(option, why))
        elif not there.intersection(reference.words(option)[0]):
            parameters.append(taking(option))
    if "--dry-run" not in there:
        parameters.append(click.Option(["--dry-run"], is_flag=True, hidden=True, expose_value=False, callback=_pretending))
    return Verb(name, context_settings=base.context_settings, callback=base.callback, params=parameters, help=base.help)


def pretending(context: click.Context, verb: str | None) -> None:
    """Nothing is done from now on, it is only said. Raises UsageError for a *verb* that cannot."""
    if verb and verb not in (*LOOKING, *pretend.VERBS, *pretend.OF_ONE, *PLANNED):
        raise click.UsageError(f"{verb} has no dry run")
    context.meta["dry_run"] = context.find_root().params["dry_run"] = True


def _pretending(context: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        pretending(context, context.command.name)


class Verb(ValuedFlags):
    """A verb of Docker Compose."""

    def invoke(self, ctx: click.Context) -> Any:
        """Do it, or say what would be done."""
        if ctx.meta.get("dry_run") and self.name in pretend.VERBS:
            given = {name: global_option(name) or () for name in NAMES}
            return pretend.pretend(
                self.name, StackOptions(**given), ctx.params.get("services") or (), ctx.params.get("replicas")
            )
        if ctx.meta.get("dry_run") and self.name in pretend.OF_ONE:
            return pretend.pretend_one(self.name, StackOptions(**{n: global_option(n) or () for n in NAMES}), ctx.params)
        return super().invoke(ctx)


def _also(parameter: click.Parameter, names: tuple[str, ...]) -> click.Parameter:
    import copy

    out = copy.copy(parameter)
    out.opts = [*parameter.opts, *names]
    return out


class Alpha(click.Group):
    """The verbs below `alpha`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, sorted."""
        return sorted(verb.removeprefix("alpha ") for verb in reference.VERBS if verb.startswith("alpha "))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb *cmd_name*, None if it does not exist."""
        return made(f"alpha {cmd_name}") if cmd_name in self.list_commands(ctx) else None


@click.command("help")
@click.argument("verb", required=False)
@click.pass_context
def help_(context: click.Context, verb: str | None) -> None:
    """What a verb does, and its options."""
    group = context.parent
    assert group
    assert isinstance(group.command, click.Group)
    if verb is None:
        return click.echo(group.get_help())
    found = group.command.get_command(group, verb)
    if found is None:
        raise click.UsageError(f"there is no verb {verb}", context)
    click.echo(found.get_help(click.Context(found, parent=group, info_name=verb)))


class Group(click.Group):
    """Docker Compose's verbs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs of Docker Compose, sorted."""
        return sorted({verb.split()[0] for verb in reference.VERBS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb *cmd_name*, None if it does not exist. Raises UsageError for a verb that pystack refuses."""
        if cmd_name == "convert":
            cmd_name = "config"  # its former name
        if why := reference.REFUSED.get(cmd_name):
            raise click.UsageError(f"{cmd_name} is {why}", ctx)
        if cmd_name in ("alpha", "help"):
            return Alpha("alpha", help="What Docker Compose tries out.") if cmd_name == "alpha" else help_
        return made(cmd_name) if cmd_name in reference.VERBS else None


def _version(context: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        from orchestrator.cli.compose.verbs import version_words

        click.echo(version_words())
        context.exit()


def _adapted(function: Callable[..., None]) -> click.Command:
    return click.command(
        "compose",
        cls=Group,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"], "allow_interspersed_args": False},
    )(function)


@_adapted
@selects_stack
@click.option("--dry-run", is_flag=True, help="Show what `up` or `create` would do.")
@click.option("--all-resources", is_flag=True, help="Networks and volumes that no service uses are made too.")
@click.option("--progress", type=click.Choice(["auto", "plain", "json", "quiet", "tty"]), help="How progress is shown.")
@click.option("--ansi", type=click.Choice(["auto", "never", "always"]), help="Colours and progress that is redrawn.")
@click.option("--compatibility", is_flag=True, hidden=True)
@click.option("--insecure-registry", multiple=True, hidden=True)
@click.option("--no-ansi", is_flag=True, hidden=True)
@click.option("--parallel", type=int, hidden=True)
@click.option("--verbose", is_flag=True, hidden=True)
@click.option("-v", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
@click.pass_context
def compose(context: click.Context, /, dry_run: bool, ansi: str | None, no_ansi: bool, **for_the_command: object) -> None:
    """docker compose's own command lines, for scripts that have them."""
    import os

    if context.invoked_subcommand is None:
        return click.echo(context.get_help())
    if dry_run:
        pretending(context, None if context.invoked_subcommand == "alpha" else context.invoked_subcommand)
    if no_ansi or (ansi or os.environ.get("COMPOSE_ANSI")) == "never":
        context.color = False
    context.meta["compose"] = True


compose.params = [_also(p, ("--workdir",)) if p.name == "project_directory" else p for p in compose.params]  # its former name
