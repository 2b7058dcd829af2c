"""`pystack image …`"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

from orchestrator.cli.client import Client, chunks, name_in_path
from orchestrator.cli.options import format_option
from orchestrator.cli.registry_login import headers_for
from orchestrator.errors import PystackError
from orchestrator.references import tagged

if TYPE_CHECKING:
    from orchestrator.cli.output import Progress


@click.group()
def image() -> None:
    """Images of the node."""


def fetch(client: Client, name: str, shown: Progress) -> None:
    """Pull *name*, showing how far it is."""
    from orchestrator.server.events import PullEvent

    query, logins = {"fromImage": tagged(name)}, headers_for([name])
    for line in client.lines("POST", f"{client.base}/images/create", query=query, headers=logins):
        if shown.mode != "quiet":
            shown.pull(PullEvent.of(name, line))


@image.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-q", "--quiet", is_flag=True)
def pull(names: tuple[str, ...], quiet: bool) -> None:
    """Fetch images from their registries."""
    from orchestrator.cli.output import Progress

    client, shown = Client(start=True), Progress("quiet" if quiet else "auto")
    for name in names:
        fetch(client, name, shown)
        click.echo(name)


@image.command()
@click.argument("name")
def push(name: str) -> None:
    """Send an image to the registry that its name says."""
    client = Client()
    for event in client.lines("POST", f"{client.base}/images/{name_in_path(name)}/push", headers=headers_for([name])):
        click.echo(f"{event.get('id', '')} {event.get('status', '')}".strip(), err=True)


@image.command()
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Only IDs.")
def ls(shape: str, quiet: bool) -> None:
    """List images."""
    from orchestrator.cli.output import bytes_text, show

    found = Client(start=True).engine("GET", "/images/json")
    if quiet:
        click.echo("\n".join(i["Id"] for i in found))
        return
    rows = [
        {"name": name, "id": i["Id"], "created": i["Created"], "size": i["Size"]}
        for i in found
        for name in i["RepoTags"] or ["<none>"]
    ]
    if shape == "table":
        rows = [row | {"id": row["id"][7:19], "size": bytes_text(row["size"])} for row in rows]
    show(rows, ("name", "id", "size"), shape)


@image.command()
@click.argument("names", nargs=-1, required=True)
def inspect(names: tuple[str, ...]) -> None:
    """Everything about images, as JSON."""
    client = Client(start=True)
    click.echo(json.dumps([client.engine("GET", f"/images/{name_in_path(n)}/json") for n in names], indent=2))


@image.command()
@click.argument("name")
@click.option("-o", "--output", type=click.File("w"), default="-", help="Where it goes; standard output if not given.")
def sbom(name: str, output: TextIO) -> None:
    """What an image is made of: an SPDX document (JSON) of the packages that dpkg, apk, Python and npm name in it."""
    found = Client(start=True).engine("GET", f"/pystack/images/{name_in_path(name)}/sbom")
    output.write(json.dumps(found, indent=2) + "\n")


@image.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True)
def rm(names: tuple[str, ...], force: bool) -> None:
    """Remove names of images, and images whose last name goes."""
    client = Client(start=True)
    for name in names:
        for row in client.engine("DELETE", f"/images/{name_in_path(name)}", query={"force": int(force)}):
            click.echo(": ".join(next(iter(row.items()))))


@image.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Every image that no container uses.")
@click.option("--unused-for", default="", metavar="240h", help="Only those that no container was made of for so long.")
def prune(everything: bool, unused_for: str) -> None:
    """Remove images without a name."""
    import time

    from orchestrator.cli.output import bytes_text
    from orchestrator.stackfile.units import parse_duration

    wanted = {"dangling": ["false" if everything else "true"]}
    if unused_for:
        try:
            wanted["unused-until"] = [str(time.time() - parse_duration(unused_for))]
        except ValueError as error:
            raise click.BadParameter(f"--unused-for: {error}") from None
    filters = json.dumps(wanted)
    result = Client(start=True).engine("POST", "/images/prune", query={"filters": filters})
    for row in result["ImagesDeleted"] or []:
        click.echo(": ".join(next(iter(row.items()))))
    click.echo(f"freed {bytes_text(result['SpaceReclaimed'])}")


@image.command()
@click.argument("source")
@click.argument("target")
def tag(source: str, target: str) -> None:
    """Give an image another name."""
    name, _, label = target.rpartition(":") if ":" in target.rsplit("/", 1)[-1] else (target, "", "latest")
    Client(start=True).engine("POST", f"/images/{name_in_path(source)}/tag", query={"repo": name, "tag": label})


@image.command()
@click.option("-i", "--input", "source", type=click.File("rb"), default="-", help="The archive; - for standard input.")
def load(source: BinaryIO) -> None:
    """Take images from a docker-archive or an OCI archive."""
    client = Client(start=True)
    for event in client.lines("POST", f"{client.base}/images/load", body=iter(chunks(source))):
        if event.get("stream"):
            click.echo(event["stream"], nl=False)


@image.command()
@click.option("-o", "--output", type=click.File("wb"), default="-", help="The file; - for standard output.")
@click.argument("names", nargs=-1, required=True)
def save(output: BinaryIO, names: tuple[str, ...]) -> None:
    """Write images to an archive that docker and OCI tools read."""
    if output.isatty():
        raise click.UsageError("an archive does not belong on a terminal: use -o FILE")
    client = Client(start=True)
    reply = client.request("GET", f"{client.base}/images/get", query={"names": list(names)})
    while data := reply.read(1 << 18):
        output.write(data)


@image.command("import")
@click.option("-c", "--change", multiple=True, help="A Dockerfile instruction: CMD, ENV, USER …")
@click.argument("source", type=click.File("rb"))
@click.argument("name")
def import_(change: tuple[str, ...], source: BinaryIO, name: str) -> None:
    """Make an image of a root file system's tar."""
    click.echo(_import(Client(start=True), chunks(source), name, change))


def _import(client: Client, body: Any, name: str, change: tuple[str, ...]) -> str:
    repo, _, label = name.rpartition(":") if ":" in name.rsplit("/", 1)[-1] else (name, "", "latest")
    query = {"fromSrc": "-", "repo": repo, "tag": label, "changes": list(change)}
    last: dict[str, Any] = {}
    for event in client.lines("POST", f"{client.base}/images/create", query=query, body=iter(body)):
        last = event
    return str(last.get("status", ""))


@image.command()
@click.argument("name", default="debian:bookworm")
@click.option("--include", multiple=True, help="More packages; may be repeated, or a list with commas.")
@click.option("--variant", default="minbase", help="mmdebstrap's variant.")
def bootstrap(name: str, include: tuple[str, ...], variant: str) -> None:
    """Make a minimal Debian base image from the distribution's packages, where no hub is in reach.

    NAME is IMAGE:SUITE such as debian:bookworm. The packages come from where this machine's own apt gets them."""
    import shutil

    suite = name.rsplit(":", 1)[-1] if ":" in name else "bookworm"
    program = shutil.which("mmdebstrap")
    if program is None:
        raise PystackError("image bootstrap needs mmdebstrap: `apt-get install mmdebstrap`")
    packages = ",".join(include)
    command = [
        program,
        f"--variant={variant}",
        "--format=tar",
        "--quiet",
        '--aptopt=APT::Sandbox::User "root"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/etc/resolv.conf',
    ]
    if packages:
        command.append(f"--include={packages}")
    sources = _apt_sources(suite)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", "0")}
    client = Client(start=True)
    # a session of its own: where it fails it hangs up its whole process group, which would be ours too
    process = subprocess.Popen(
        [*command, suite, "-", *sources], stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    assert process.stdout
    try:
        first = process.stdout.read(1 << 16)  # comes when all is installed: a server waits for no sender that long
        ident = (
            _import(client, itertools.chain((first,), chunks(process.stdout)), name, ('CMD ["/bin/bash"]',)) if first else ""
        )
    except BaseException:
        process.terminate()
        raise
    finally:
        process.stdout.close()
        code = process.wait()
    if code:
        raise PystackError(f"mmdebstrap failed with {code}: see its words above")
    click.echo(ident)


def _apt_sources(suite: str) -> list[str]:
    """The machine's own Debian mirror, so that a proxy or local mirror is used."""
    import re
    from pathlib import Path

    for path in (*Path("/etc/apt/sources.list.d").glob("*.sources"), Path("/etc/apt/sources.list")):
        text = path.read_text() if path.is_file() else ""
        match = re.search(r"^URIs:\s*(\S+/debian)/?\s*$", text, re.MULTILINE) or re.search(
            r"^deb\s+(?:\[[^]]*\]\s+)?(\S+/debian)/?\s", text, re.MULTILINE
        )
        if match:
            return [f"deb {match[1]} {suite} main"]
    return []
