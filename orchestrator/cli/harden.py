"""`pystack harden`"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import SPAN, StackOptions, stack_options
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.audit.needs import Need, Written
    from orchestrator.cli.trials import Running, Trials


@click.command()
@stack_options
@click.option(
    "--test", default="", metavar="COMMAND", help="A shell command in the container that passes when the service works."
)
@click.option(
    "--for", "runs", type=SPAN, default="5s", show_default=True, help="How long a service without a healthcheck must run."
)
@click.option("--timeout", "limit", type=SPAN, default="60s", show_default=True, help="How long a trial may take to come up.")
@click.argument("service")
def harden(stack: StackOptions, test: str, runs: float, limit: float, service: str) -> None:
    """Run a service for trial and print what it needs beyond `x-harden: strict`, in lines to paste into the stack file.

    It is run once as it is and watched, then under strict with less and less, until nothing more can be left out. It works if
    --test passes, if it is healthy, or else if it goes on running. Trials have fresh volumes and publish no port; folders of
    the host that it mounts are its own."""
    from orchestrator.audit import needs
    from orchestrator.cli.trials import Trials

    trials = Trials(stack, service)
    strict = needs.strict(trials.container)

    def fails(wanted: Sequence[Need]) -> str:
        why = trials.outcome(needs.given(strict, wanted), test, runs, limit)
        words = ", ".join(n.value for n in wanted) or "nothing more"
        click.echo(f"strict with {words}: {why or 'works'}", err=True)
        return why

    if not fails(()):
        return click.echo(needs.lines(service, ()))
    wanted, took_s = _observe(trials, test, runs, limit)
    limit = min(limit, max(10.0, runs * 2, took_s * 4))
    if why := fails(wanted):
        raise PystackError(f"service {service} does not run under strict with all that it was seen to need: {why}")
    click.echo(needs.lines(service, needs.smallest(wanted, lambda some: not fails(some))))


def _observe(trials: Trials, test: str, runs: float, limit: float) -> tuple[list[Need], float]:
    """What the service might need, by a run of it as it is; and how long it took to come up. Raises PystackError."""
    from orchestrator.audit import needs

    begun = time.monotonic()
    with trials.running(needs.loose(trials.container)) as running:
        if why := running.outcome(test, runs, limit):
            raise PystackError(f"service {trials.service.name} does not run as it is: {why}")
        took_s = time.monotonic() - begun
        seen = running.observed()
        changes = {row["Path"]: row["Kind"] for row in running.get("changes") or ()}
        written = _written(running, changes)
    words = f"{len(seen['calls'])} system calls, writes to {', '.join(w.folder for w in written) or 'no folder of its root'}"
    click.echo(f"as it is, watched: works: {words}", err=True)
    return needs.candidates(trials.container, seen["calls"], written, beyond_strict=seen["beyond_strict"]), took_s


def _written(running: Running, changes: dict[str, int]) -> list[Written]:
    from orchestrator.audit import needs

    added = {path for path, kind in changes.items() if kind == 1}
    found = needs.folders(changes, running.is_directory)
    return [needs.Written(f, any(path not in added for path in running.entries(f))) for f in found]
