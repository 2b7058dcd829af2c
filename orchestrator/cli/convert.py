"""`pystack convert`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.convert.document import Document


@click.group()
def convert() -> None:
    """Make a stack file of `docker run` command lines, or of Kubernetes manifests."""


@convert.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the stack file there.")
@click.option("--strict", is_flag=True, help="Fail where something has no counterpart.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def run(output: str | None, strict: bool, words: tuple[str, ...]) -> None:
    """WORDS are one command line (`docker run -d -p 80:80 nginx`); without them scripts are read from standard input."""
    import shlex

    from orchestrator.convert.document import Document
    from orchestrator.convert.run import commands, service_of

    text = shlex.join(words) if words else sys.stdin.read()
    if words and "run" not in words[:3]:
        text = f"docker run {text}"
    found = commands(text)
    if not found:
        raise PystackError("there is no `docker run` in it")
    document = Document()
    for command in found:
        service_of(document, command)
    _write(document, output, strict=strict)


@convert.command("kubernetes")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the stack file there.")
@click.option("--strict", is_flag=True, help="Fail where something has no counterpart.")
@click.argument("files", nargs=-1, required=True)
def kubernetes(output: str | None, strict: bool, files: tuple[str, ...]) -> None:
    """FILES are manifests, folders of them, or - for standard input."""
    import yaml

    from orchestrator.convert.document import Document
    from orchestrator.convert.kubernetes import convert as into

    objects: list[object] = []
    for name in files:
        path = Path(name)
        for file in sorted(p for p in path.rglob("*") if p.suffix in (".yml", ".yaml", ".json")) if path.is_dir() else [path]:
            try:
                objects += yaml.safe_load_all(sys.stdin.read() if name == "-" else file.read_text())
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise PystackError(f"{file}: {error}") from None
    document = Document()
    try:
        into(objects, document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PystackError(f"these are not manifests that Kubernetes would take: {type(error).__name__}: {error}") from None
    if not document.services:
        raise PystackError("no workload is among the manifests: a Deployment, StatefulSet, DaemonSet, Job, CronJob or Pod")
    _write(document, output, strict=strict)


def _write(document: Document, output: str | None, *, strict: bool) -> None:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Text of several lines as such, and no references."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    written = yaml.dump(document.plain(), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    if output:
        Path(output).write_text(written)
    else:
        click.echo(written, nl=False)
    for warning in document.warnings:
        click.echo(f"note: {warning}", err=True)
    if strict and document.warnings:
        raise PystackError("not everything has a counterpart")
