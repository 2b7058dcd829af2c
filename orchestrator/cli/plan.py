"""`pystack plan`"""

from __future__ import annotations

import json
from typing import Any

import click

from orchestrator.cli.options import StackOptions, scales, stack_options
from orchestrator.cli.project_files import enforce_lock, inline_project_files
from orchestrator.cli.show_plan import show


@click.command()
@stack_options
@click.argument("services", nargs=-1)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Save the plan, for `pystack apply`.")
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON.")
@click.option("--exit-code", is_flag=True, help="Exit with 2 if there is something to do.")
@click.option("--scale", multiple=True, callback=scales, metavar="S=N")
@click.option("--force-recreate", is_flag=True)
@click.option("--remove-orphans", is_flag=True)
@click.option("--strict", is_flag=True, help="Refuse keys that have no effect.")
@click.option("--locked", is_flag=True, help="Refuse images that are not as stack.lock says.")
@click.option("--from-git", "ref", default="", metavar="REF", help="Plan the files as a commit has them.")
@click.option("--to", "revision", type=int, default=0, metavar="REV", help="Plan a rollback to that revision of the history.")
@click.option("--markdown", is_flag=True, help="The plan as Markdown, for a pull request.")
def plan(
    stack: StackOptions,
    services: tuple[str, ...],
    output: str | None,
    as_json: bool,
    exit_code: bool,
    scale: dict[str, int],
    force_recreate: bool,
    remove_orphans: bool,
    strict: bool,
    locked: bool,
    ref: str,
    markdown: bool,
    revision: int,
) -> None:
    """Show each step that `up` would take, and why. Changes nothing."""
    import msgspec

    from orchestrator.cli.client import Client
    from orchestrator.cli.providers import as_last_given

    if revision:
        wanted = {"revision": revision}
        result = Client(start=True).json("POST", f"/v1/stacks/{stack.name()}/plan", body=wanted)
        return _end(show(result, shape="json" if as_json else "markdown" if markdown else "text"), exit_code)
    if ref:
        from orchestrator.cli.git_source import checked_out, rebase_paths
        from orchestrator.gitops.decrypt import require_decrypted

        with checked_out(ref) as (tree, top):
            loaded = stack.load(strict=strict)
        require_decrypted((loaded.stack,), {}, "say with SOPS_AGE_KEY_FILE which age key opens it")
        loaded = msgspec.structs.replace(loaded, stack=rebase_paths(loaded.stack, tree, top))
    else:
        loaded = stack.load(strict=strict)
    if locked:
        loaded = enforce_lock(loaded)
    options = {"services": services, "scale": scale, "force_recreate": force_recreate, "remove_orphans": remove_orphans}
    client = Client(start=True)
    loaded, providers = as_last_given(client, loaded)
    sent = loaded.stack if ref else inline_project_files(client, loaded)
    body = msgspec.json.encode({"stack": sent, "options": options})
    result = client.json("POST", "/v1/plan", body=body)
    if output:
        _save(output, {"stack": msgspec.to_builtins(sent), "options": options, "plan": result})
    shape = "json" if as_json else "markdown" if markdown else "text"
    _end(show(result, shape=shape, ref=ref, providers=providers), exit_code)


def _end(changes: bool, exit_code: bool) -> None:
    if exit_code and changes:
        raise SystemExit(2)


def _save(path: str, saved: dict[str, Any]) -> None:
    """For its owner's eyes alone: what configs and secrets contain is in it."""
    import os

    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(saved, file)


@click.command()
@click.argument("planfile", type=click.Path(exists=True, dir_okay=False))
def apply(planfile: str) -> None:
    """Do exactly what a saved plan says, or refuse where the state moved since."""
    from pathlib import Path

    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events

    consume_events(Client(start=True).events("/v1/apply", body=Path(planfile).read_bytes()), Progress())
