"""`pystack deploy`: from a working tree what GitOps does from a commit."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from orchestrator.cli.options import StackOptions, progress_option, stack_options
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.http import Response
    from orchestrator.cli.output import Progress
    from orchestrator.stackfile.model import Stack

CHUNK = 1 << 20
BUILDS = "builds"
"""The label of nodes that build: their caches grow where they are used."""


class WorkingTree(NamedTuple):
    """What a deployment is made of: *commit* is the hash, *person* NAME <ADDRESS>, *changed* the paths not committed."""

    commit: str
    subject: str
    person: str
    origin: str
    changed: tuple[str, ...]


@click.command()
@stack_options
@click.option("-m", "--message", default="", help="Why, for the stack's history; the commit's subject if not given.")
@click.option("--dirty", is_flag=True, help="With changes that are not committed too; the history says so.")
@click.option("--no-lock", is_flag=True, help="Do not hold images to stack.lock, where there is one.")
@progress_option
def deploy(stack: StackOptions, message: str, dirty: bool, no_lock: bool, progress: str) -> None:
    """Build what this working tree has, and roll it out, with its commit and your name in the history; nobody else deploys the
    stack meanwhile.

    Images are built on a node with the label `builds` (`pystack node label n2 builds=true`), if there is one."""
    from orchestrator.cli.apply import apply
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.cli.project_files import enforce_lock

    loaded = stack.load()
    tree = working_tree(loaded.directory)
    if tree.changed and not dirty:
        some = ", ".join(tree.changed[:5]) + (" …" if len(tree.changed) > 5 else "")
        raise PystackError(f"not committed: {some}: commit it, or say --dirty, and the history says so too")
    if loaded.stack.lock is not None and not no_lock:
        loaded = enforce_lock(loaded)
    client, shown = Client(start=True), Progress(progress)
    with claimed(client, loaded.stack.name, tree):
        _build(client, loaded.stack, shown)
        apply(
            client,
            loaded,
            shown,
            no_build=True,
            remove_orphans=True,
            user=tree.person,
            message=message or tree.subject,
            source=f"{tree.origin}@{tree.commit}{'+changes' if tree.changed else ''}",
        )


def working_tree(folder: Path) -> WorkingTree:
    """The working tree that *folder* is in. Raises PystackError where it is in none, or has no commit."""
    commit, person, subject = _git(folder, "log", "-1", "--format=%H%n%an <%ae>%n%s").split("\n", 2)
    with contextlib.suppress(PystackError):  # who deploys, where git knows; else who made the commit
        person = f"{_git(folder, 'config', 'user.name')} <{_git(folder, 'config', 'user.email')}>"
    top = Path(_git(folder, "rev-parse", "--show-toplevel"))
    changed = [line[3:] for line in _git(folder, "status", "--porcelain", "--", str(top), strip=False).splitlines()]
    return WorkingTree(commit=commit, subject=subject, person=person, origin=top.name, changed=tuple(changed))


def _git(folder: Path, *words: str, strip: bool = True) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PystackError("deploy needs the git program: it says which commit goes out") from None
    if done.returncode:
        why = done.stderr.strip().removeprefix("fatal: ").partition("\n")[0]
        raise PystackError(f"{folder} is not a working tree with a commit: {why or 'git says no'}; `pystack up` needs none")
    return done.stdout.strip() if strip else done.stdout


@contextlib.contextmanager
def claimed(client: Client, stack: str, tree: WorkingTree) -> Iterator[None]:
    """Nobody else deploys *stack* meanwhile. Raises RefusedError (409) with who does, and since when."""
    reply = client.request("POST", f"/v1/stacks/{stack}/claim", body={"person": tree.person, "commit": tree.commit})
    try:
        yield
    finally:
        reply.close()  # the claim lasts as long as the connection: it ends with a client that dies, too


def _build(client: Client, stack: Stack, shown: Progress) -> None:
    """Build on the node that does that; the server's own has the images then, from where the others get them."""
    from orchestrator.cli.build import build_services
    from orchestrator.cli.client import name_in_path

    builder = _builder(client)
    build_services(builder, stack, (), always=True, progress=shown)
    for image in sorted({s.container.image for s in stack.services if s.build} if builder is not client else ()):
        archive = builder.request("GET", f"{builder.base}/images/{name_in_path(image)}/get")
        client.request("POST", f"{client.base}/images/load", body=_chunks(archive)).read()


def _chunks(archive: Response) -> Iterator[bytes]:
    while chunk := archive.read(CHUNK):
        yield chunk


def _builder(client: Client) -> Client:
    """The client for a node that builds: one with the label, else the server's own."""
    nodes = sorted(client.json("GET", "/v1/nodes"), key=lambda n: n["name"])
    found = [n["name"] for n in nodes if BUILDS in dict(n["labels"]) and n["state"] == "ready"]
    return client.at(found[0]) if found else client
