"""`pystack profile …`"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import SPAN, StackOptions, stack_options
from orchestrator.errors import PystackError


@click.group()
def profile() -> None:
    """Seccomp profiles of services: which system calls they may make."""


@profile.command()
@stack_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="SERVICE.seccomp.json, if not given.")
@click.option("--for", "runs", type=SPAN, default="10s", show_default=True, help="How long to record after it is up.")
@click.option("--test", default="", metavar="COMMAND", help="A shell command that uses the service, run in the container.")
@click.option("--timeout", "limit", type=SPAN, default="60s", show_default=True, help="How long it may take to come up.")
@click.option("--publish", multiple=True, metavar="PORT", help="Publish this port meanwhile, in the form of `ports:`.")
@click.argument("service")
def record(
    stack: StackOptions, output: Path | None, runs: float, test: str, limit: float, publish: tuple[str, ...], service: str
) -> None:
    """Run a service for trial, record the system calls it makes, and write the smallest seccomp profile that has them.

    What it does in that time is what it may do later: give it its usual load, by --test or at a port that --publish names;
    Ctrl-C ends the recording. Then it is run once more with the profile. It has fresh volumes."""
    from orchestrator.audit import needs
    from orchestrator.cli.trials import Trials

    trials = Trials(stack, service, publish)
    container = needs.observed(trials.container)
    with trials.running(container) as running:
        if why := running.outcome(test, min(runs, 2.0), limit):
            raise PystackError(f"service {service} does not run: {why}")
        _wait(running, test, runs)
        seen = running.observed()
    path = output or Path(f"{service}.seccomp.json")
    path.write_text(json.dumps(seen["profile"], indent=2) + "\n")
    allowed = _calls(seen["profile"])
    share = 100 * allowed / seen["default"]
    click.echo(f"{path}: {allowed} system calls, {share:.0f} % of the default profile's {seen['default']}", err=True)
    confined = needs.confined(trials.container, json.dumps(seen["profile"]))
    if why := trials.outcome(confined, test, min(runs, 5.0), limit):
        raise PystackError(f"service {service} does not run with {path}: {why}: record it once more, for longer")
    click.echo(f"services:\n  {service}:\n    security_opt: [seccomp={path}]")


def _wait(running: Any, test: str, runs: float) -> None:
    """Let *runs* seconds pass, the test run meanwhile."""
    end = time.monotonic() + runs
    try:
        while (left := end - time.monotonic()) > 0:
            if test:
                running.run(test, left)
            time.sleep(min(0.5, max(0.0, left)))
    except KeyboardInterrupt:
        click.echo("recording ends", err=True)


def _calls(document: dict[str, Any]) -> int:
    return len({name for rule in document["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]})
