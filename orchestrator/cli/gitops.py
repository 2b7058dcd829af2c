"""`pystack gitops …`"""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.client import Client
from orchestrator.cli.options import format_option
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.gitops.api import Difference, RepoRow

COLUMNS = ("name", "state", "commit", "subject", "checked", "url")


@click.group()
def gitops() -> None:
    """Git repositories that the cluster follows."""


def _seconds(_: Any, __: Any, value: str) -> float:
    from orchestrator.stackfile.units import parse_duration

    try:
        return max(1.0, parse_duration(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _span(_: Any, __: Any, value: str) -> float:
    from orchestrator.stackfile.units import parse_duration

    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _bytes(_: Any, __: Any, value: str) -> int:
    from orchestrator.stackfile.units import parse_bytes

    try:
        return parse_bytes(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


FILE = click.Path(exists=True, dir_okay=False)


@gitops.command("add")
@click.option("--name", default="", help="Its name; the repository's own name if not given.")
@click.option("--branch", default="", help="The branch; the repository's default if not given.")
@click.option("--path", default=".", help="A stack file, or the folder that has stack files or a pystack.yml.")
@click.option("--interval", default="60s", callback=_seconds, help="Time between two looks at the remote.")
@click.option("--target", "targets", multiple=True, help="Take the stacks that pystack.yml has for this target.")
@click.option("--prune/--no-prune", default=False, help="Take stacks down that no file has any more.")
@click.option("--auto/--approve", "auto", default=True, help="Apply commits, or wait for `gitops approve`.")
@click.option("--drift", type=click.Choice(["repair", "report"]), default="repair", help="What to do about changes by hand.")
@click.option("--deploy-key", type=FILE, help="Private SSH key.")
@click.option("--known-hosts", type=FILE, help="The host's keys; ~/.ssh/known_hosts if not given.")
@click.option("--token", type=FILE, help="File with a token for HTTPS.")
@click.option("--age-key", type=FILE, help="File with the age identity that opens the repository's age and sops files.")
@click.option("--signed-by", type=FILE, help="Allowed signers (ssh-keygen(1)) or OpenPGP keys; others' commits are refused.")
@click.option("--webhook", default="", metavar="HOST:PORT", help="Listen there for signed POSTs to /NAME.")
@click.option("--webhook-secret", type=FILE, help="File with the secret that they are signed with.")
@click.option("--status-command", default="", help="Shell command for each outcome; see PYSTACK_COMMIT, _PHASE, _MESSAGE.")
@click.option(
    "--previews",
    multiple=True,
    metavar="PATTERN",
    help="A stack of its own for each branch that matches: 'feature/*'; or for each request: 'refs/pull/*/head'.",
)
@click.option("--preview-host", default="", metavar="HOST", help="What its hosts are called: '{branch}.preview.example.org'.")
@click.option(
    "--preview-ttl", default="0s", callback=_span, help="How long after its newest commit it stays; for ever if not given."
)
@click.option("--max-size", default="256m", callback=_bytes, help="Refuse repositories whose newest commit is larger.")
@click.argument("url")
def add(
    url: str,
    name: str,
    branch: str,
    path: str,
    interval: float,
    targets: tuple[str, ...],
    prune: bool,
    auto: bool,
    drift: str,
    deploy_key: str | None,
    known_hosts: str | None,
    token: str | None,
    age_key: str | None,
    signed_by: str | None,
    webhook: str,
    webhook_secret: str | None,
    status_command: str,
    max_size: int,
    previews: tuple[str, ...],
    preview_host: str,
    preview_ttl: float,
) -> None:
    """Follow a git repository (https, ssh or a path of the server's host) from now on."""
    if webhook and not webhook_secret:
        raise click.UsageError("--webhook needs --webhook-secret FILE: anybody could call it")
    if Path(url).exists():
        url = str(Path(url).resolve())
    name = name or re.sub(r"\.git$", "", url.rstrip("/").rpartition("/")[2].rpartition(":")[2])
    repo = {
        "name": name,
        "url": url,
        "branch": branch,
        "path": path,
        "interval_s": interval,
        "targets": targets,
        "prune": prune,
        "approve": not auto,
        "drift": drift,
        "webhook": webhook,
        "status_command": status_command,
        "largest": max_size,
        "previews": previews,
        "preview_host": preview_host,
        "preview_ttl_s": preview_ttl,
        "known_hosts": _text(known_hosts) if known_hosts else _known(url),
        "signers": _text(signed_by),
    }
    secrets = {"key": deploy_key, "token": token, "webhook_secret": webhook_secret, "age_key": age_key}
    encoded = {k: base64.b64encode(_secret(f)).decode() for k, f in secrets.items() if f}
    _print_repo(Client(start=True).json("POST", "/v1/gitops", body={"repo": repo, **encoded}))


def _text(file: str | None) -> str:
    return Path(file).read_text() if file else ""


def _secret(file: str) -> bytes:
    content = Path(file).read_bytes().strip()
    if not content:
        raise PystackError(f"{file} is empty")
    return content


def _known(url: str) -> str:
    """The keys of the repository's host that this user knows."""
    if Path(url).exists() or ("://" in url and not url.startswith("ssh://")):
        return ""
    match = re.match(r"(?:ssh://)?(?:[^@/]+@)?([^:/]+)(?::(\d+))?", url)
    if not match:
        return ""
    host = f"[{match[1]}]:{match[2]}" if match[2] and url.startswith("ssh://") else match[1]
    try:
        return subprocess.run(["ssh-keygen", "-F", host], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def _print_repo(row: RepoRow) -> None:
    """What is to be known of a repository; a failed state is the command's failure."""
    if row["problem"]:
        raise PystackError(f"{row['name']} cannot be followed since {row['since']}: {row['problem']}")
    click.echo(f"{row['name']}: {row['state']} {row['commit'][:12]} {row['subject']}".rstrip())
    for line in (*row["plan"], *filter(None, row["message"].splitlines())):
        click.echo(f"  {line}")
    for line in row["drift"]:
        click.echo(f"  drift: {line}")
    if row["state"] in ("failed", "rolled back"):
        raise PystackError(f"commit {row['commit'][:12]} of {row['name']} {row['state']}")


@gitops.command("ls")
@format_option
def ls(shape: str) -> None:
    """The repositories, and how their newest commits fare."""
    from orchestrator.cli.output import show

    rows: list[RepoRow] = Client(start=True).json("GET", "/v1/gitops")
    if shape == "table":
        for row in rows:
            row["commit"] = row["commit"][:12]
    show(rows, COLUMNS, shape)


@gitops.command("status")
@format_option
@click.argument("name")
def status(shape: str, name: str) -> None:
    """One repository: its newest commit, what differs, and what became of those before."""
    import msgspec

    from orchestrator.cli.output import show_document
    from orchestrator.gitops.model import SyncOutcome

    row: RepoRow = Client(start=True).json("GET", f"/v1/gitops/{name}")
    if show_document(row, shape):
        return
    for outcome in msgspec.convert(row["history"], tuple[SyncOutcome, ...])[:-1][-9:]:
        commit = outcome.commit
        click.echo(f"{outcome.at}  {commit.id[:12]}  {outcome.phase:11}  {commit.author}  {commit.subject}")
    _print_repo(row)


def _verb(word: str, path: str, text: str) -> None:
    def verb(name: str) -> None:
        _print_repo(Client(start=True).json("PUT", f"/v1/gitops/{name}/{path}"))

    gitops.command(word, help=text)(click.argument("name")(verb))


_verb("sync", "sync", "Look at the newest commit now, and return when that is done.")
_verb("approve", "approve", "Apply the commit that waits.")
_verb("pause", "pause", "Stop following it until `resume`.")
_verb("resume", "resume", "Follow it again.")


@gitops.command("diff")
@click.argument("name")
def diff(name: str) -> None:
    """What the newest commit would change; changes nothing."""
    found: Difference = Client(start=True).json("GET", f"/v1/gitops/{name}/diff")
    click.echo(f"{found['commit'][:12]} {found['subject']}")
    for line in found["plan"] or ["nothing to do"]:
        click.echo(f"  {line}")


@gitops.command("rm")
@click.argument("names", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> None:
    """Follow repositories no more; their stacks run on."""
    client = Client(start=True)
    for name in names:
        client.json("DELETE", f"/v1/gitops/{name}")
        click.echo(name)
