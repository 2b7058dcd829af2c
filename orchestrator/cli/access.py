"""`pystack user …`, `pystack token …`, `pystack audit-log`"""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from orchestrator.cli.options import format_option

ROLE = click.Choice(["viewer", "operator", "admin"])
USER_COLUMNS = ("name", "role", "stacks", "password", "created")
TOKEN_COLUMNS = ("name", "role", "stacks", "created", "expires")
LOG_COLUMNS = ("time", "user", "source", "action", "stack", "outcome", "what")
stacks_option = click.option(
    "--stack",
    "stacks",
    multiple=True,
    metavar="PATTERN",
    help="Only stacks whose name is like that (shop-*); several times for several. All if not given.",
)


@click.group()
def user() -> None:
    """People who sign in at the page: `pystack ui`."""


def _password(from_stdin: bool, without: bool) -> str:
    if without:
        return ""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _put(name: str, role: str, stacks: tuple[str, ...], password: str, *, new: bool) -> None:
    from orchestrator.cli.client import Client

    body = {"role": role, "stacks": stacks or ("*",), "password": password, "new": new}
    made = Client(start=True).json("PUT", f"/v1/users/{name}", body=body)
    click.echo(f"{made['name']}: {made['role']} of {', '.join(made['stacks'])}")


@user.command("create")
@click.option("--role", type=ROLE, default="viewer", show_default=True, help="A viewer looks, an operator changes stacks.")
@stacks_option
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--no-password", is_flag=True, help="None: the user comes by an OpenID provider alone.")
@click.argument("name")
def create_user(role: str, stacks: tuple[str, ...], password_stdin: bool, no_password: bool, name: str) -> None:
    """Create a user; the password is asked for."""
    _put(name, role, stacks, _password(password_stdin, no_password), new=True)


@user.command("set")
@click.option("--role", type=ROLE, help="Another role.")
@stacks_option
@click.option("--password", "ask", is_flag=True, help="Ask for another password; open sessions end.")
@click.option("--password-stdin", is_flag=True, help="Read another password from standard input.")
@click.argument("name")
def set_user(role: str | None, stacks: tuple[str, ...], ask: bool, password_stdin: bool, name: str) -> None:
    """Change a user's role, stacks or password."""
    from orchestrator.cli.client import Client
    from orchestrator.errors import RefusedError

    known = next((u for u in Client(start=True).json("GET", "/v1/users") if u["name"] == name), None)
    if known is None:
        raise RefusedError(f"there is no user {name}: `pystack user ls`", 404)
    password = _password(password_stdin, not (ask or password_stdin))
    _put(name, role or known["role"], stacks or tuple(known["stacks"]), password, new=False)


@user.command("ls")
@format_option
def list_users(shape: str) -> None:
    """The users, and what they may."""
    _list("/v1/users", USER_COLUMNS, shape)


def _list(path: str, columns: tuple[str, ...], shape: str) -> None:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    rows = Client(start=True).json("GET", path)
    if shape == "table":
        for row in rows:
            row["stacks"] = ", ".join(row["stacks"])
    show(rows, columns, shape)


def _remove(path: str, names: tuple[str, ...]) -> None:
    from orchestrator.cli.client import Client

    client = Client(start=True)
    for name in names:
        client.json("DELETE", f"{path}/{name}")
        click.echo(name)


@user.command("rm")
@click.argument("names", nargs=-1, required=True)
def remove_users(names: tuple[str, ...]) -> None:
    """Remove users; their sessions end."""
    _remove("/v1/users", names)


@click.group()
def token() -> None:
    """What programs show to the server: PYSTACK_TOKEN, or the header `Authorization: Bearer …`."""


@token.command("create")
@click.option("--role", type=ROLE, default="viewer", show_default=True)
@stacks_option
@click.option("--days", type=click.FloatRange(min=0), default=0.0, help="For how long it holds; for ever if not given.")
@click.argument("name")
def create_token(role: str, stacks: tuple[str, ...], days: float, name: str) -> None:
    """Create a token, and print its secret, which is kept nowhere."""
    from orchestrator.cli.client import Client

    body = {"role": role, "stacks": stacks or ("*",), "days": days}
    click.echo(Client(start=True).json("PUT", f"/v1/tokens/{name}", body=body)["secret"])


@token.command("ls")
@format_option
def list_tokens(shape: str) -> None:
    """The tokens, and what they may."""
    _list("/v1/tokens", TOKEN_COLUMNS, shape)


@token.command("rm")
@click.argument("names", nargs=-1, required=True)
def remove_tokens(names: tuple[str, ...]) -> None:
    """Remove tokens: what shows them is refused from now on."""
    _remove("/v1/tokens", names)


@click.command("audit-log")
@click.option("-n", "--last", type=click.IntRange(min=1), default=50, show_default=True, help="How many lines.")
@click.option("--stack", default="", help="Those of one stack.")
@click.option("--user", "name", default="", help="Those of one user or token.")
@format_option
def audit_log(last: int, stack: str, name: str, shape: str) -> None:
    """What was changed, who did it, from where, and by which plan."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    query = {"last": last, **({"stack": stack} if stack else {}), **({"user": name} if name else {})}
    rows = Client(start=True).json("GET", "/v1/audit-log", query=query)
    show([_shown(row) for row in rows] if shape == "table" else rows, LOG_COLUMNS, shape)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    steps = list(row.get("steps", ()))
    more = len(steps) - 3 + row.get("more_steps", 0)
    what = "; ".join(steps[:3]) + (f"; {more} more" if more > 0 else "") or row.get("target") or row.get("message", "")
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["time"]))
    return {"stack": "", "outcome": "begun", **row, "time": at, "what": what}
