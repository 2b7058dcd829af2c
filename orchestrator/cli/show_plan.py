"""A plan, for people, for a pull request, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import implied_options, is_compose
from orchestrator.cli.project_files import inline_project_files

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.planning.state import Plan, Step
    from orchestrator.stackfile.load import Loaded

CHANGES = ("create", "update", "replace", "remove")


def show_plan(client: Client, loaded: Loaded, *, starts: bool = True, **options: Any) -> None:
    """What `apply` would do, and that it starts what it makes; nothing is asked of providers."""
    import msgspec

    from orchestrator.cli.providers import as_last_given
    from orchestrator.planning.state import Plan

    loaded, providers = as_last_given(client, loaded)
    body = msgspec.json.encode(
        {"stack": inline_project_files(client, loaded), "options": {**implied_options(loaded), **options}}
    )
    found = client.json("POST", "/v1/plan", body=body)
    if is_compose():
        _in_words(msgspec.convert(found, Plan), starts=starts)
    else:
        show(found, providers=providers)


def show(
    result: dict[str, Any], *, shape: str = "text", ref: str = "", providers: Mapping[str, bool] = MappingProxyType({})
) -> bool:
    """Print a plan, as the server answers it; whether there is something to do. `up` runs *providers*; of those that are true
    the plan has what they gave before."""
    import msgspec

    from orchestrator.cli.output import COLOURS
    from orchestrator.planning.state import Plan

    plan = msgspec.convert(result, Plan)
    if shape == "json":
        summary = {word: sum(s.action == word for s in plan.steps) for word in CHANGES}
        steps = [_whole(step) for step in plan.steps]
        document = {"revision": plan.revision, "stack": plan.stack, "steps": steps, "summary": summary}
        click.echo(json.dumps({**document, **({"providers": [*providers]} if providers else {})}))
        return bool(plan.changes)
    if shape == "markdown":
        click.echo(_markdown(plan, ref))
        for name, known in providers.items():
            click.echo(f"\n> {_run_provider(name, known)}")
        return bool(plan.changes)
    for name, known in providers.items():
        click.secho(_run_provider(name, known), fg="yellow")
    for step in plan.changes:
        at = f" on {step.node}" if step.node else ""
        click.secho(f"{step.action} {step.kind} {step.name}{at}: {step.reason}", fg=COLOURS.get(step.action))
        for change in step.changes:
            if change.before != change.after:  # both masked: the reason says it all
                click.echo(f"    {change.path}: {_text(change.before)} → {_text(change.after)}")
    for warning in plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(_summary(plan))
    return bool(plan.changes)


def _in_words(plan: Plan, *, starts: bool) -> None:
    """The steps as Docker Compose would report them, and that what they make *starts*."""
    from orchestrator.cli.compose_progress import Words, say
    from orchestrator.server.events import DoneEvent, StepEvent

    words = Words()
    for step in plan.steps:
        words.event(StepEvent.of(step))
        if step.kind == "task" and step.action == "none":
            say("Container", step.name, "Running")
    words.event(DoneEvent(failures=()))
    for step in plan.changes if starts else ():
        if step.kind == "task" and step.action in ("create", "replace"):
            say("Container", step.name, "Starting")
            say("Container", step.name, "Started")


def _run_provider(name: str, known: bool) -> str:
    taken = "the plan takes it to give what it gave before" if known else "what it gives is not known yet"
    return f"run provider {name}: {taken}"


def _summary(plan: Plan) -> str:
    counts = {word: sum(s.action == word for s in plan.changes) for word in CHANGES}
    return ", ".join(f"{n} to {w}" for w, n in counts.items() if n) or "nothing to do"


def _markdown(plan: Plan, ref: str) -> str:
    """A heading, the sum, and a table of the steps with what changes."""
    lines = [f"### Plan for stack `{plan.stack}`{f' from `{ref}`' if ref else ''}", "", f"**{_summary(plan)}**"]
    if plan.changes:
        lines += ["", "| | what | on | why |", "|---|---|---|---|"]
    for step in plan.changes:
        changes = [f"`{c.path}`: {_text(c.before)} → {_text(c.after)}" for c in step.changes if c.before != c.after]
        why = "<br>".join([step.reason, *changes]).replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {step.action} | {step.kind} `{step.name}` | {step.node} | {why} |")
    return "\n".join([*lines, *(f"\n> warning: {w}" for w in plan.warnings)])


def _whole(step: Step) -> dict[str, Any]:
    """A step with every key of the contract."""
    fields = {name: getattr(step, name) for name in step.__struct_fields__}
    return {**fields, "changes": [{"path": c.path, "from": c.before, "to": c.after} for c in step.changes]}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) < 100 else text[:97] + "…"
