"""The `pystack` command: a thin client. A command's module is imported when the command is named."""

from __future__ import annotations

import sys

import click

from orchestrator import __version__
from orchestrator.cli.lazy import LazyGroup
from orchestrator.errors import PystackError

COMMANDS = {
    "up": "up", "down": "down", "plan": "plan", "config": "config", "ps": "look", "ls": "look", "images": "look",
    "logs": "logs", "events": "look", "exec": "execute", "stop": "lifecycle", "start": "lifecycle",
    "restart": "lifecycle", "build": "build", "pull": "pull", "image": "image", "container": "container",
    "network": "objects", "volume": "objects", "secret": "contents", "configs": "contents",
    "system": "system", "version": "system", "lab": "lab",
    "server": "serve", "kill": "tasks", "pause": "tasks", "unpause": "tasks", "wait": "tasks", "rm": "tasks",
    "top": "tasks", "stats": "tasks", "port": "tasks", "attach": "tasks", "cp": "tasks", "create": "up",
    "scale": "up", "run": "run", "node": "node", "agent": "serve", "doctor": "doctor", "store": "store",
    "why": "why", "why-not": "why", "rebalance": "rebalance", "schema": "schema",
    "gitops": "gitops", "convert": "convert", "watch": "watch",
    "port-forward": "forward", "apply": "plan", "history": "history", "rollback": "history",
}


@click.command(cls=LazyGroup, commands_from=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pystack")
@click.option("-f", "--file", multiple=True, type=click.Path(dir_okay=False), help="Stack file, for the command.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(file: tuple[str, ...], debug: bool) -> None:
    """Run stacks of containers from Compose files, on one host or many."""


def main() -> None:
    """Exit status: 0 done, 1 failed, 2 usage, 130 interrupted."""
    debug = "--debug" in sys.argv
    try:
        code = cli.main(standalone_mode=False)
        raise SystemExit(code if isinstance(code, int) else 0)
    except PystackError as error:
        if debug:
            raise
        print(f"pystack: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        print("pystack: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
