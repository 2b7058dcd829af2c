"""The `pystack` command: a thin client. A command's module is imported when the command is named."""

from __future__ import annotations

import itertools
import os
import sys

import click

from orchestrator import __version__
from orchestrator.cli.lazy import LazyGroup
from orchestrator.cli.options import selects_stack
from orchestrator.errors import PystackError

COMMANDS = {
    "up": "up",
    "down": "down",
    "plan": "plan",
    "config": "config",
    "ps": "ps",
    "ls": "ls",
    "images": "images",
    "volumes": "volumes",
    "logs": "logs",
    "events": "events",
    "exec": "execute",
    "stop": "lifecycle",
    "start": "lifecycle",
    "restart": "lifecycle",
    "build": "build",
    "pull": "pull",
    "image": "image",
    "container": "container",
    "network": "objects",
    "volume": "objects",
    "secret": "contents",
    "configs": "contents",
    "system": "system",
    "version": "system",
    "lab": "lab",
    "server": "serve",
    "kill": "tasks",
    "pause": "tasks",
    "unpause": "tasks",
    "wait": "tasks",
    "rm": "tasks",
    "top": "tasks",
    "stats": "tasks",
    "port": "tasks",
    "attach": "tasks",
    "cp": "tasks",
    "create": "up",
    "scale": "up",
    "run": "run",
    "node": "node",
    "agent": "serve",
    "doctor": "doctor",
    "store": "store",
    "cluster": "cluster",
    "deploy": "deploy",
    "why": "why",
    "why-not": "why",
    "lock": "lock",
    "audit": "audit",
    "harden": "harden",
    "profile": "recording",
    "rebalance": "rebalance",
    "schema": "schema",
    "gitops": "gitops",
    "ingress": "ingress",
    "user": "access",
    "token": "access",
    "audit-log": "access",
    "ui": "ui",
    "notify": "notify",
    "monitoring": "monitoring",
    "convert": "convert",
    "compose": "compose",
    "check": "check",
    "watch": "watch",
    "export": "export",
    "commit": "export",
    "publish": "publish",
    "push": "export",
    "port-forward": "forward",
    "apply": "plan",
    "history": "history",
    "rollback": "history",
    "rollout": "rollout",
    "completion": "completion",
    "graph": "graph",
    "help": "help",
    "cron": "cron",
    "set": "change",
    "autoscale": "autoscale",
    "job": "cron",
}


OF_EXTRAS = (
    "aiohttp",
    "h2",
    "asyncssh",
    "cryptography",
    "grpc",
    "networkx",
    "numpy",
    "prometheus_client",
    "pyroute2",
    "uvloop",
)
"""Modules that the client does without, but for what speaks to registries and runs servers."""


@click.command(
    cls=LazyGroup, commands_from=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="pystack")
@selects_stack
@click.option("--dry-run", is_flag=True, help="Show what `up` or `create` would do, as `plan` does.")
@click.option("--all-resources", is_flag=True, help="Networks that no service is on are made too.")
@click.option("--progress", type=click.Choice(["auto", "plain", "json", "quiet", "tty"]), help="How progress is shown.")
@click.option("--ansi", type=click.Choice(["auto", "never", "always"]), hidden=True)
@click.option("--verbose", is_flag=True, hidden=True)
@click.option("--compatibility", is_flag=True, hidden=True)
@click.option("--parallel", type=int, hidden=True)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(context: click.Context, /, dry_run: bool, **for_the_command: object) -> None:
    """Run stacks of containers from Compose files, on one host or many.

    Options that name a stack may stand here or behind the command."""
    if dry_run and context.invoked_subcommand not in ("up", "create", "plan", "config", "publish"):
        raise click.UsageError(f"{context.invoked_subcommand} has no dry run: `pystack plan` shows what `up` would do")


def _colours() -> bool | None:
    """Whether there are colours: None is for click to see, by whether there is a terminal. Source: no-color.org."""
    pairs = itertools.pairwise([*sys.argv[1:], ""])
    given = [behind if word == "--ansi" else word[7:] for word, behind in pairs if word.startswith("--ansi")]
    return {"never": False, "always": True}.get(given[0] if given else "", False if os.environ.get("NO_COLOR") else None)


def main() -> None:
    """Exit status: 0 done, 1 failed, 2 usage, 130 interrupted."""
    if "_PYSTACK_COMPLETE" in os.environ:
        from orchestrator.cli.completion import answer

        raise SystemExit(answer(cli))
    debug = "--debug" in sys.argv
    alias = ["compose"] if sys.argv[0].rpartition("/")[2] == "docker-compose" else []
    try:
        code = cli.main([*alias, *sys.argv[1:]], standalone_mode=False, color=_colours())
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
    except ModuleNotFoundError as error:
        if debug or (error.name or "").partition(".")[0] not in OF_EXTRAS:
            raise
        print(
            f"pystack: this needs {error.name}, and the client alone is here: `pip install 'pystack-orchestrator[server]'`",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:  # a file of the user's, or where the output goes: the server's own errors come as answers
        if debug:
            raise
        print(f"pystack: {error.filename + ': ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        raise SystemExit(1) from None
