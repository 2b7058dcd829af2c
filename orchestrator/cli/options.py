"""Options that all stack verbs share, and the stack that they name."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.stackfile.load import Loaded, Options

F = TypeVar("F", bound=Callable[..., Any])

progress_option = click.option("--progress", type=click.Choice(("auto", "plain", "json", "quiet")), default="auto")


class StackOptions:
    """-f, -p, --profile, --env-file, --project-directory as given."""

    def __init__(self, **given: Any) -> None:
        self.given = given

    @functools.cached_property
    def files(self) -> tuple[str, ...]:
        """The paths of -f; those that lie elsewhere are fetched. Raises PystackError."""
        from orchestrator.stackfile.remote import is_remote

        given = tuple(self.given["file"])
        return tuple(str(_fetch(text)) if is_remote(text) else text for text in given)

    def options(self, *, interpolate: bool = True, consistency: bool = True, named: Sequence[str] = ()) -> Options:
        """The options with which the stack file is loaded. *named* are services that no profile leaves out."""
        from orchestrator.stackfile.load import Options

        listed = tuple(f for f in os.environ.get("COMPOSE_ENV_FILES", "").split(",") if f)
        return Options(
            files=self.files,
            fetch=_fetch,
            names=_file_names(),
            project_name=self.given["project_name"] or "",
            project_directory=self.given["project_directory"] or "",
            env_files=self.given["env_file"] or listed,
            profiles=self.given["profile"],
            interpolate=interpolate,
            consistency=consistency,
            unused=bool(global_option("all_resources")),
            named=tuple(named),
        )

    def load(
        self,
        *,
        strict: bool = False,
        interpolate: bool = True,
        quiet: bool = False,
        consistency: bool = True,
        named: Sequence[str] = (),
    ) -> Loaded:
        """Read the stack; keys without effect are warned of, or refused with *strict*. No profile leaves out who is *named*."""
        from orchestrator.stackfile.load import load
        from orchestrator.stackfile.problem import StackFileError

        loaded = load(self.options(interpolate=interpolate, consistency=consistency, named=named), os.environ)
        if strict and loaded.warnings:
            raise StackFileError(loaded.warnings)
        for warning in sorted((*loaded.warnings, *loaded.notes), key=lambda p: p.where) if not quiet else ():
            click.echo(f"warning: {warning}", err=True)
        return loaded

    def check_services(self, services: Sequence[str]) -> None:
        """Raises NoSuchServiceError for those of *services* that the file does not have."""
        from orchestrator.errors import require_services

        if services:
            stack = self.load(quiet=True, named=services).stack
            require_services(services, stack.name, (s.name for s in stack.services))

    def name(self) -> str:
        """The project's name, without a file where -p says it. Raises PystackError where that is malformed."""
        given, variable = self.given["project_name"], os.environ.get("COMPOSE_PROJECT_NAME", "")
        if given or variable:
            return _checked(given or variable, "-p" if given else "COMPOSE_PROJECT_NAME")
        if os.environ.get("COMPOSE_ENV_FILES"):
            return self.load(quiet=True).stack.name
        from orchestrator.stackfile import naming
        from orchestrator.stackfile.host_paths import absolute_path

        start = absolute_path(self.given["project_directory"] or ".")
        if not self.files and ((start / ".env").is_file() or self.given["env_file"]):
            from orchestrator.stackfile.variables import variables_of

            paths = naming.stack_files((), variables_of(start, self.given["env_file"], os.environ), start, _file_names())
        else:
            paths = naming.stack_files(self.files, os.environ, start, _file_names())
        directory = absolute_path(self.given["project_directory"] or paths[0].parent)
        return naming.plain_name(paths, directory, self.given["env_file"]) or self.load(quiet=True).stack.name


def declared(names: Collection[str]) -> set[str]:
    """Those of the services *names* that the file of this command has; none where there is no file that can be read."""
    from orchestrator.errors import PystackError

    context = click.get_current_context(silent=True)
    stack = context.meta.get("stack") if context else None
    try:
        loaded = stack.load(quiet=True, named=tuple(names)) if stack else None
    except PystackError:
        return set()
    return {s.name for s in loaded.services}.intersection(names) if loaded else set()


def _checked(name: str, place: str) -> str:
    """*name*, which *place* has, if it can be one of a project. Raises PystackError."""
    from orchestrator.errors import PystackError
    from orchestrator.stackfile import naming

    if not naming.NAME.match(name):
        raise PystackError(f"{place}: name {name!r} is not a project name: {naming.NAME_RULE}")
    return name


def _file_names() -> tuple[str, ...]:
    """What a stack file may be called; `pystack compose` knows Docker Compose's names alone."""
    from orchestrator.stackfile.naming import NAMES, NAMES_OF_COMPOSE

    return NAMES_OF_COMPOSE if is_compose() else NAMES


def is_compose() -> bool:
    """Whether this is a command line of Docker Compose."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get("compose"))


def implied_options(loaded: Loaded) -> dict[str, Any]:
    """UpOptions that no option asks for: what the file leaves out, how Docker Compose brings projects up, where this is one of
    its command lines, and what its variables say."""
    return {"again": is_compose(), "ignore_orphans": is_set("COMPOSE_IGNORE_ORPHANS"), "left_out": loaded.left_out}


def is_set(variable: str) -> bool:
    """Whether this variable of the environment says yes."""
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")


def _fetch(text: str) -> Path:
    """The local copy of a stack file that lies elsewhere. Raises PystackError."""
    from orchestrator.cli import remote_files  # few files lie elsewhere

    return remote_files.fetch(text)


def global_option(name: str) -> Any:
    """What was given for option *name* before the command's own name, None where nothing was."""
    context = click.get_current_context().parent
    while context is not None:
        if given := context.params.get(name):
            return given
        context = context.parent
    return None


NAMES = ("file", "project_name", "project_directory", "env_file", "profile")


def selects_stack(function: F, *, short: bool = True) -> F:
    """The options that name a stack. *short* False leaves -f to the command itself."""
    for option in (
        click.option(
            *(("-f",) if short else ()),
            "--file",
            multiple=True,
            type=click.Path(dir_okay=False),
            help="Stack file, of a git repository or oci:// too; may be repeated.",
        ),
        click.option("-p", "--project-name", help="Name of the stack."),
        click.option("--profile", multiple=True, help="Activate a profile."),
        click.option("--env-file", multiple=True, type=click.Path(dir_okay=False), help="Instead of .env."),
        click.option("--project-directory", type=click.Path(file_okay=False), help="What relative paths begin at."),
    ):
        function = option(function)
    return function


def stack_options(function: F, *, short: bool = True) -> F:
    """Adds them to a command, which gets them as its first argument; those before the command's name count too."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name, None) or global_option(name) or () for name in NAMES}
        stack = StackOptions(**given)
        click.get_current_context().meta["stack"] = stack
        return function(stack, *args, **kwargs)

    return selects_stack(wrapper, short=short)  # type: ignore[return-value]


long_stack_options = functools.partial(stack_options, short=False)  # where -f is the command's own, as in Docker's


class Shape(click.ParamType):  # type: ignore[type-arg]
    """table, json, or a template in the language of Go."""

    name = "table|json|TEMPLATE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """*value* as it is. Raises click.BadParameter for what is none of them."""
        if value not in ("table", "json") and "{{" not in value:
            self.fail(f"{value!r} is none of table, json, or a template like '{{{{.Name}}}}'", param, ctx)
        return value


format_option = click.option(
    "--format", "shape", type=Shape(), default="table", help="A table, one JSON array, or a Go template ('table …' aligns)."
)


def transport_option(*known: str, help: str) -> Callable[[F], F]:
    """`--transport`, None where it is not given; and for one release its former name, hidden and with a warning."""

    def former(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value:
            click.echo(f"warning: --courier is now --transport: write --transport {value}", err=True)
            context.meta["transport"] = value  # what is given is read before what is not

    def either(context: click.Context, _: click.Parameter, value: str | None) -> str | None:
        return value or context.meta.get("transport")

    def decorate(command: F) -> F:
        old = click.option("--courier", type=click.Choice(known), hidden=True, expose_value=False, callback=former)
        return click.option("--transport", type=click.Choice(known), callback=either, help=help)(old(command))

    return decorate


stream_format_option = click.option(
    "--format", "shape", type=click.Choice(["table", "json"]), default="table", help="For people, or one JSON object a line."
)


class Timestamp(click.ParamType):  # type: ignore[type-arg]
    """A time as docker-logs(1) takes it, for the server: seconds since the epoch, or RFC 3339."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """*value* as seconds since the epoch, as text. A duration counts back from now; a time without a zone is local."""
        import datetime
        import time

        from orchestrator.stackfile.units import parse_duration

        if not value or value.replace(".", "", 1).isdecimal():
            return value
        try:
            return f"{time.time() - parse_duration(value):.6f}"
        except ValueError:
            pass
        try:
            # without a zone it is this machine's
            return str(datetime.datetime.fromisoformat(value.replace("Z", "+00:00")).astimezone().timestamp())
        except ValueError:
            self.fail(f"{value!r}: write how long ago (10m, 1h30m), a time (2026-11-26T14:00:00), or seconds since the epoch")


class Span(click.ParamType):  # type: ignore[type-arg]
    """A span of time (`90s`, `1h30m`), in seconds."""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """*value* in seconds."""
        from orchestrator.stackfile.units import parse_duration

        try:
            return value if isinstance(value, float) else parse_duration(value)
        except ValueError:
            self.fail(f"{value!r} is not a span of time such as 10s or 2m")


SPAN = Span()


def scales(_: Any, __: Any, values: tuple[str, ...]) -> dict[str, int]:
    """Callback of click: SERVICE=NUMBER options as a dict. Raises BadParameter for another form."""
    out = {}
    for value in values:
        name, sep, count = value.partition("=")
        if not sep or not count.isdecimal():
            raise click.BadParameter(f"{value!r}: write SERVICE=NUMBER")
        out[name] = int(count)
    return out


def user_name() -> str:
    """Who runs the command, for the history: the login name, or the user's number where it has none (getpwuid(3))."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # OSError from Python 3.13 on, ImportError on Windows
        return str(os.getuid()) if hasattr(os, "getuid") else ""
