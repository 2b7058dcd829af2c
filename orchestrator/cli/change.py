"""`pystack set`"""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.options import StackOptions, stack_options, user_name


def _pairs(_: Any, __: Any, values: tuple[str, ...]) -> dict[str, str]:
    out = {}
    for value in values:
        name, sep, text = value.partition("=")
        if not sep or not name:
            raise click.BadParameter(f"{value!r}: write NAME=VALUE")
        out[name] = text
    return out


@click.command("set")
@stack_options
@click.option("--image", default="", help="Another image.")
@click.option("--env", "-e", multiple=True, callback=_pairs, metavar="NAME=VALUE", help="A variable; may be repeated.")
@click.option("--unset-env", multiple=True, metavar="NAME", help="A variable that goes.")
@click.option("--label", multiple=True, callback=_pairs, metavar="NAME=VALUE", help="A label of its containers.")
@click.option("--command", default=None, help="Another command; words as in a shell.")
@click.option("-m", "--message", default="", help="Why, for the stack's history.")
@click.argument("service")
def set_(
    stack: StackOptions,
    image: str,
    env: dict[str, str],
    unset_env: tuple[str, ...],
    label: dict[str, str],
    command: str | None,
    message: str,
    service: str,
) -> None:
    """Change a service without its file, as a revision of its own; the next `up` of the file takes it back."""
    import shlex

    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events

    if not (image or env or unset_env or label or command is not None):
        raise click.UsageError("nothing to set: give --image, --env, --unset-env, --label or --command")
    body: dict[str, Any] = {"image": image, "env": env, "unset": unset_env, "labels": label}
    if command is not None:
        body["command"] = shlex.split(command)
    body["options"] = {"user": user_name(), "message": message}
    consume_events(Client().events(f"/v1/stacks/{stack.name()}/services/{service}/set", body=body), Progress())
