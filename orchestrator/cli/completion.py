"""`pystack completion`: what a shell offers behind a word, with the names that there are now.

The scripts are click's; the answers are ours: a command's module is not imported to offer its name, and a server that is
slow or away is not waited for. Source: click, "Shell Completion".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

ASK_S = 0.5
"""How long a server may take; then nothing is offered."""
SHELLS = ("bash", "zsh", "fish")
COMPLETING = "_PYSTACK_COMPLETE"

ARGUMENTS: dict[str, str] = {
    "services": "service",
    "service": "service",
    "task": "task",
    "replicas": "scale",
    "node": "node",
    "planfile": "",
}
"""What a stack verb's argument is the name of."""
OF_GROUP = {
    "node": "node",
    "container": "container",
    "image": "image",
    "network": "network",
    "volume": "volume",
    "secret": "secret",
    "configs": "config",
    "gitops": "gitops",
    "lab": "",
}
"""What `name` and `names` are of, by the group of the command."""
PATHS = {
    "node": "/v1/nodes",
    "image": "/v1/nodes/local/engine/images/json",
    "container": "/v1/nodes/local/engine/containers/json?all=1",
    "network": "/v1/nodes/local/engine/networks",
    "volume": "/v1/nodes/local/engine/volumes",
    "secret": "/v1/secrets",
    "config": "/v1/configs",
    "gitops": "/v1/gitops",
    "stack": "/v1/stacks",
}


def kind_of(context: click.Context, parameter: click.Parameter) -> str:
    """What the values of a parameter are the names of, "" for none of ours."""
    if parameter.name == "project_name":
        return "stack"
    if not isinstance(parameter, click.Argument):
        return ""
    group = context.parent.info_name if context.parent and context.parent.parent else ""
    if parameter.name in ("name", "names", "source"):
        return OF_GROUP.get(group or "", "")
    return ARGUMENTS.get(parameter.name or "", "")


def names(kind: str, project: str = "") -> list[str]:
    """The names of that kind that there are now; none where no server answers in time."""
    from orchestrator.cli.endpoint import control_socket, dial
    from orchestrator.cli.http import Connection

    path = PATHS.get(kind) or f"/v1/stacks/{project or _project()}/tasks"
    try:
        sock = dial(control_socket())
        sock.settimeout(ASK_S)
        reply = Connection(sock, []).request("GET", path, {}, None)
        if reply.status != 200:
            return []
        import json

        rows = json.loads(reply.read())
    except Exception:
        if os.environ.get("PYSTACK_DEBUG_COMPLETION"):
            raise
        return []  # a shell's Tab must print no errors
    return sorted(set(_named(kind, rows)))


def _project() -> str:
    from orchestrator.cli.options import NAMES, StackOptions, global_option

    return StackOptions(**{name: global_option(name) or () for name in NAMES}).name()


def _named(kind: str, rows: Any) -> Iterable[str]:
    for row in rows["Volumes"] if kind == "volume" else rows:
        match kind:
            case "image":
                yield from (tag for tag in row.get("RepoTags") or () if tag != "<none>:<none>")
            case "container":
                yield from (name.lstrip("/") for name in row.get("Names") or ())
            case "network" | "volume":
                yield row["Name"]
            case "service":
                yield row["service"]
            case "scale":
                yield f"{row['service']}="
            case "task":
                yield row["task"]
            case "stack":
                yield row["stack"]
            case _:
                yield row["name"]


def _from_file() -> list[str]:
    """Services of the file, where no server knows them."""
    from orchestrator.cli.options import NAMES, StackOptions, global_option

    try:
        loaded = StackOptions(**{name: global_option(name) or () for name in NAMES}).load(quiet=True, consistency=False)
    except Exception:
        return []
    return [service.name for service in loaded.stack.services]


def attach(context: click.Context) -> None:
    """Have the parameters of the command of *context* offer the names that there are."""
    for parameter in context.command.params:
        if kind := kind_of(context, parameter):
            parameter._custom_shell_complete = _offer(kind)  # click's own place for it, which its decorators set


def _offer(kind: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    def offered(context: click.Context, _: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        with context:
            found = names(kind, str(context.params.get("project_name") or ""))
            if not found and kind in ("service", "scale"):
                found = _from_file()
        given = {value for values in context.params.values() if isinstance(values, tuple) for value in values}
        return [CompletionItem(name) for name in found if name.startswith(incomplete) and name not in given]

    return offered


def answer(program: click.Command) -> int:
    """Be the program that a completion script asks. Returns the exit status."""
    from click.shell_completion import CompletionItem, _resolve_context, _resolve_incomplete, get_completion_class

    shell, _, _ = os.environ[COMPLETING].partition("_")
    base = get_completion_class(shell)
    if base is None:
        return 1

    class Completer(base):  # type: ignore[misc, valid-type]
        def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
            context = _resolve_context(self.cli, self.ctx_args, self.prog_name, args)
            attach(context)
            asked, incomplete = _resolve_incomplete(context, args, incomplete)
            return asked.shell_complete(context, incomplete)

    click.echo(Completer(program, {}, "pystack", COMPLETING).complete())
    return 0


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script by which a shell completes pystack's commands, options and names.

    bash: `pystack completion bash > /etc/bash_completion.d/pystack`; zsh: into a folder of $fpath as _pystack; fish:
    ~/.config/fish/completions/pystack.fish. The Debian package has all three."""
    from click.shell_completion import get_completion_class

    cli = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    assert found
    text = found(cli, {}, "pystack", COMPLETING).source()
    sys.stdout.write(text.replace("compdef _pystack_completion pystack;", "compdef _pystack_completion pystack"))
