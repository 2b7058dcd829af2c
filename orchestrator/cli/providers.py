"""Services that a program of the client provides: it is run before the stack is brought up, and after it went.

    <program> compose --project-name=NAME up|down --option=value… SERVICE

It says on standard output what it does, one JSON object a line, {"type": …, "message": …}: info and debug are shown, error ends
it all, `setenv` NAME=VALUE gives a variable to who depends on the service, with the service's name before it, `rawsetenv` as
it is. Source: docker/compose, docs/extension.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click
import msgspec

from orchestrator.errors import PystackError, RefusedError
from orchestrator.stackfile.graph import needed

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.stackfile.load import Loaded
    from orchestrator.stackfile.model import Service
    from orchestrator.stackfile.pre_start import Provided


def start_providers(loaded: Loaded, services: Iterable[str]) -> Loaded:
    """*loaded* with the variables that its providers give; those whose users are not among *services* are left alone.

    Raises PystackError where a provider is missing or fails."""
    named = set(services)
    wanted = named | needed(loaded.stack.services, named)
    stack = loaded.stack
    for one in loaded.providers:
        if named and one.service.name not in wanted and not wanted.intersection(one.users):
            continue
        variables = _run(loaded, one.service, "up")
        changed = [_with(s, one, _named(one, s.name, variables)) if s.name in one.users else s for s in stack.services]
        stack = msgspec.structs.replace(stack, services=tuple(changed))
    return msgspec.structs.replace(loaded, stack=stack)


def stop_providers(loaded: Loaded) -> None:
    """Tell the providers, the last first, that nobody needs them any more. Raises PystackError."""
    for one in reversed(loaded.providers):
        _run(loaded, one.service, "down")


def _named(one: Provided, user: str, variables: dict[str, str]) -> dict[str, str]:
    """*variables* as *user* calls them, where it is a model's."""
    from orchestrator.stackfile.models import variable

    for name, endpoint, model in one.names:
        if name == user:
            own = {variable(one.service.name, "URL"): endpoint, variable(one.service.name, "MODEL"): model}
            if lacking := sorted(own.keys() - variables.keys()):
                raise PystackError(
                    f"{one.service.where}: models.{one.service.name}: its provider did not say {' and '.join(lacking)}"
                )
            return {own.get(k, k): v for k, v in variables.items()}
    return variables


def as_last_given(client: Client, loaded: Loaded) -> tuple[Loaded, dict[str, bool]]:
    """*loaded* with the variables that its providers gave when the stack was last brought up, which asks none of them; and
    whether there are any, by provider. The protocol has no question that changes nothing, so a plan can know no more."""
    if not loaded.providers:
        return loaded, {}
    from orchestrator.cli.rows import services as applied

    try:
        before = applied(client, loaded.stack.name)
    except RefusedError:
        before = {}
    stack, known = loaded.stack, dict[str, bool]()
    for one in loaded.providers:
        kept = {name: _given_before(before.get(name, {}), one.service.name) for name in one.users}
        known[one.service.name] = any(kept.values())
        services = tuple(_with(s, one, kept[s.name], quiet=True) if kept.get(s.name) else s for s in stack.services)
        stack = msgspec.structs.replace(stack, services=services)
    return msgspec.structs.replace(loaded, stack=stack), known


def _given_before(applied: Mapping[str, Any], provider: str) -> dict[str, str]:
    """What *provider* gave to the service that was *applied*, as the API shows it."""
    names = {name for by, name in applied.get("provided", ()) if by == provider}
    return {name: value for name, value in applied.get("container", {}).get("environment", ()) if name in names}


def _with(service: Service, one: Provided, variables: Mapping[str, str], *, quiet: bool = False) -> Service:
    own = dict(service.container.environment)
    for name in sorted(own.keys() & variables):
        if own[name] != variables[name] and not quiet:
            click.echo(f"warning: {service.where}: {service.name}: {name} comes from its provider, not from the file", err=True)
    container = msgspec.structs.replace(service.container, environment=tuple({**own, **variables}.items()))
    provided = dict.fromkeys((*service.provided, *((one.service.name, name) for name in variables)))
    return msgspec.structs.replace(service, container=container, provided=tuple(provided))


def _run(loaded: Loaded, service: Service, verb: str) -> dict[str, str]:
    assert service.provider
    body = service.provider
    program = shutil.which(f"docker-{body.type}") or shutil.which(body.type)
    is_model = not service.container.image
    what = f"models.{service.name}" if is_model else f"services.{service.name}"
    if program is None:
        place = what if is_model else f"{what}.provider"
        raise PystackError(
            f"{service.where}: {place}: there is no program docker-{body.type} or {body.type} in PATH: install it"
        )
    words = [
        program,
        "compose",
        f"--project-name={loaded.stack.name}",
        verb,
        *(f"--{k}={v}" for k, v in body.options),
        service.name,
    ]
    variables: dict[str, str] = {}
    failed = ""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=loaded.directory) as child:
        assert child.stdout
        for line in child.stdout:
            try:
                answer = json.loads(line)
                kind, message = answer["type"], str(answer["message"])
            except (ValueError, KeyError, TypeError):
                kind, message = "info", line.rstrip()
            name, _, value = message.partition("=")
            if kind == "setenv":
                variables[f"{service.name.upper().replace('-', '_')}_{name}"] = value
            elif kind == "rawsetenv":
                variables[name] = value
            elif kind == "error":
                failed = message
            elif kind == "info":
                click.echo(f"{service.name}: {message}", err=True)
    if failed or child.returncode:
        reason = failed or f"it ended with {child.returncode}"
        raise PystackError(f"{service.where}: {what}: provider {body.type}: {reason}")
    return variables
