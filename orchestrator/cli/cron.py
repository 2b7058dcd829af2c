"""`pystack cron …` and `pystack job …`: services with a schedule, and the runs of all that ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import StackOptions, format_option, stack_options

if TYPE_CHECKING:
    from orchestrator.server.api.jobs import RunRow, ScheduleRow

output_option = click.option("--output", "with_output", is_flag=True, help="With the end of each task's output.")


@click.group()
def cron() -> None:
    """Services that run at certain times (`x-schedule`)."""


@click.group()
def job() -> None:
    """Work that ends (`deploy.mode: replicated-job`, `x-schedule`, `x-hooks`)."""


@cron.command("ls")
@stack_options
@click.option("-a", "--all", "everything", is_flag=True, help="Of all stacks.")
@format_option
def ls(stack: StackOptions, everything: bool, shape: str) -> None:
    """When services run next, and how the last run ended."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    query = {} if everything else {"stack": stack.name()}
    rows: list[ScheduleRow] = Client().json("GET", "/v1/schedules", query=query)
    if shape == "table":
        for row in rows:
            row["next"] = "paused" if row["paused"] else row["next"][:19]
            row["last"] = f"{row['last'][:19]} {row['outcome']}".strip()
    show(rows, ("stack", "service", "cron", "timezone", "next", "last", "running"), shape)


@cron.command("run")
@stack_options
@click.argument("service")
def run(stack: StackOptions, service: str) -> None:
    """Run a service now and wait for its end; interrupted, it goes on."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress, consume_events

    consume_events(Client().events(f"/v1/stacks/{stack.name()}/schedules/{service}/run"), Progress())


@cron.command("history")
@stack_options
@output_option
@format_option
@click.argument("services", nargs=-1)
def cron_history(stack: StackOptions, with_output: bool, shape: str, services: tuple[str, ...]) -> None:
    """The last runs of the stack's schedules, as many as `history` says."""
    _history(stack, services, ("schedule", "hand"), with_output, shape)


@job.command("history")
@stack_options
@output_option
@format_option
@click.argument("services", nargs=-1)
def job_history(stack: StackOptions, with_output: bool, shape: str, services: tuple[str, ...]) -> None:
    """The last runs of all that ends: jobs, schedules and hooks."""
    _history(stack, services, (), with_output, shape)


def _history(stack: StackOptions, services: tuple[str, ...], triggers: tuple[str, ...], with_output: bool, shape: str) -> None:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import CONTROL, show

    client, name = Client(), stack.name()
    rows: list[RunRow] = []
    for service in services or ("",):
        rows += client.json("GET", f"/v1/stacks/{name}/runs", query={"service": service} if service else {})
    rows = [r for r in rows if not triggers or r["trigger"] in triggers]
    if shape == "json":
        return show(rows, (), shape)
    if with_output:
        for row in rows:
            click.echo(f"{row['service']} {row['run']}: {row['state']}{': ' + row['reason'] if row['reason'] else ''}")
            for task in row["tasks"]:
                for line in task["output"]:
                    click.echo(f"    {task['name']} | {CONTROL.sub('', line)}")
        return None
    shown = [{**row, **_cells(row)} for row in rows]
    show(shown, ("service", "run", "trigger", "scheduled", "begun", "ended", "state", "exit_codes", "reason"), shape)
    return None


def _cells(row: RunRow) -> dict[str, object]:
    """What a table shows otherwise."""
    times = {"begun": row["begun"][:23], "ended": row["ended"][:23], "scheduled": row["scheduled"][:23]}
    return {**times, "exit_codes": ["" if t["exit_code"] is None else t["exit_code"] for t in row["tasks"]]}


def _switch(stack: StackOptions, service: str, verb: str) -> None:
    from orchestrator.cli.client import Client

    row: ScheduleRow = Client().json("POST", f"/v1/stacks/{stack.name()}/schedules/{service}/{verb}")
    click.echo(f"{service}: {'paused' if row['paused'] else 'runs next at ' + (row['next'] or 'no time')}")


@cron.command("pause")
@stack_options
@click.argument("service")
def pause(stack: StackOptions, service: str) -> None:
    """Let its times pass until `resume`; a run that is going on goes on."""
    _switch(stack, service, "pause")


@cron.command("resume")
@stack_options
@click.argument("service")
def resume(stack: StackOptions, service: str) -> None:
    """Let it run at its times again; those that passed are not made up for."""
    _switch(stack, service, "resume")
