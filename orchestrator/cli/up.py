"""`pystack up`"""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli.options import StackOptions, stack_options


def scales(_: Any, __: Any, values: tuple[str, ...]) -> dict[str, int]:
    out = {}
    for value in values:
        name, sep, count = value.partition("=")
        if not sep or not count.isdigit():
            raise click.BadParameter(f"{value!r}: write SERVICE=NUMBER")
        out[name] = int(count)
    return out


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@click.option("-d", "--detach", is_flag=True, help="Do not follow the output (the default).")
@click.option("--attach", is_flag=True, help="Follow the output until interrupted; then stop the stack.")
@click.option("--build", is_flag=True, help="Build images even where they are there.")
@click.option("--pull", type=click.Choice(["always", "missing", "never"]), default=None)
@click.option("--no-deps", is_flag=True, help="Do not wait for depends_on conditions.")
@click.option("--force-recreate", is_flag=True, help="Replace tasks that did not change.")
@click.option("--remove-orphans", is_flag=True, help="Remove tasks of services that left the file.")
@click.option("--scale", multiple=True, callback=scales, metavar="S=N", help="Replicas of a service.")
@click.option("--timeout", type=float, default=None, help="Seconds to wait for a task to be up.")
@click.option("--wait/--no-wait", default=True, help="Wait until all is running, and healthy where there is a check.")
@click.option("--strict", is_flag=True, help="Refuse keys that have no effect.")
@click.option("--progress", type=click.Choice(["auto", "plain", "json", "quiet"]), default="auto")
def up(
    stack: StackOptions, services: tuple[str, ...], detach: bool, attach: bool, build: bool, pull: str | None,
    no_deps: bool, force_recreate: bool, remove_orphans: bool, scale: dict[str, int], timeout: float | None, wait: bool,
    strict: bool, progress: str,
) -> None:
    """Make the stack of the file true: build, pull, start, and wait until it runs."""
    import msgspec

    from orchestrator.cli.build import build_services
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, failures

    del detach
    loaded = stack.load(strict=strict)
    client = Client(start=True)
    shown = Progress(progress)
    build_services(client, loaded.stack, services, always=build, progress=shown)
    options: dict[str, Any] = {
        "services": services, "scale": scale, "force_recreate": force_recreate, "remove_orphans": remove_orphans,
        "no_deps": no_deps, "wait": wait, "timeout_s": timeout, "pull": pull or "",
    }
    body = msgspec.json.encode({"stack": loaded.stack, "options": options})
    failed: list[dict[str, Any]] = []
    for event in client.lines("POST", "/v1/up", body=body):
        if event["event"] == "done":
            failed = event["failures"]
        if event["event"] != "done" or progress == "json":
            shown.event(event)
    if failed:
        failures(failed)
        raise SystemExit(1)
    if attach:
        from orchestrator.cli.logs import follow_stack

        try:
            follow_stack(client, loaded.stack.name, services, follow=True, tail="all")
        except KeyboardInterrupt:
            click.echo("stopping", err=True)
            for event in client.lines("POST", f"/v1/stacks/{loaded.stack.name}/stop", body={}):
                shown.event(event)
            raise
