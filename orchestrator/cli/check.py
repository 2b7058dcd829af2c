"""`pystack check`: what of somebody else's file will be otherwise here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import format_option
from orchestrator.errors import PystackError

Row = dict[str, str]
COLUMNS = ("where", "what", "here", "why")


@click.command()
@format_option
@click.option("--strict", is_flag=True, help="End with 1 where anything has no effect.")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
def check(shape: str, strict: bool, files: tuple[str, ...]) -> None:
    """What of Compose, Swarm or Kubernetes FILES will differ here, each file by itself: one table, and no side effect.

    refused: it is an error here. not started: the service that has it is not. no effect: it is read, and nothing follows.
    differs: how. Ends with 1 where something is refused or not started."""
    from orchestrator.cli.output import show

    rows = [row for file in files for row in _rows(Path(file))]
    if rows or shape == "json":
        show(rows, COLUMNS, shape)
    else:
        click.echo("nothing differs")
    wrong = ("refused", "not started", *(("no effect",) if strict else ()))
    if any(row["here"] in wrong for row in rows):
        raise SystemExit(1)


def _rows(file: Path) -> Iterator[Row]:
    import yaml

    try:
        documents = [d for d in yaml.safe_load_all(file.read_text()) if isinstance(d, dict)]
    except UnicodeDecodeError as error:
        raise PystackError(f"{file}: no text: {error.reason}") from None
    except yaml.YAMLError:
        documents = []  # the loader says where, and what to do; its YAML is that of 1.2
    if documents and all("apiVersion" in d and "kind" in d for d in documents):
        yield from _of_kubernetes(file, documents)
    else:
        yield from _of_stack(file)


def _of_stack(file: Path) -> Iterator[Row]:
    """Of a Compose or Swarm file: every profile of it counts."""
    from orchestrator.stackfile.load import Options, load
    from orchestrator.stackfile.problem import Problem, StackFileError

    problems: tuple[Problem, ...] = ()
    try:
        found: Any = load(Options(files=(str(file),), project_name="check", profiles=("*",)), os.environ)
    except StackFileError as error:
        found, problems = error, error.problems
    findings = [("refused", p) for p in problems]
    findings += [("no effect", p) for p in found.warnings] + [("differs", p) for p in found.differences]
    for here, one in sorted(findings, key=lambda pair: pair[1].where):
        why = one.why + (f" → {one.fix}" if one.fix else "")
        yield {"where": str(one.where), "what": one.what, "here": here, "why": why.removeprefix("has no effect: ")}
    for service in () if problems else found.stack.services:
        for line in filter(None, service.problem.splitlines()):
            where, _, why = line.partition(": ")
            yield {"where": where, "what": f"services.{service.name}", "here": "not started", "why": why}


def _of_kubernetes(file: Path, documents: list[dict[str, Any]]) -> Iterator[Row]:
    """Of manifests: what has no counterpart, and what is to be said of the stack file that they make."""
    import yaml

    from orchestrator.convert.document import Document
    from orchestrator.convert.kubernetes import convert

    made = Document()
    try:
        convert(list(documents), made)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"Kubernetes would not take it: {type(error).__name__}: {error}"
        yield {"where": str(file), "what": "the manifests", "here": "refused", "why": why}
        return
    for warning in made.warnings:
        what, _, why = warning.partition(": ")
        yield {"where": str(file), "what": what, "here": "no effect", "why": why or "has no counterpart"}
    if not made.services:
        yield {"where": str(file), "what": "the manifests", "here": "refused", "why": "no workload is among them"}
        return
    with tempfile.TemporaryDirectory() as folder:
        stack = Path(folder) / "stack.yml"
        stack.write_text(yaml.safe_dump(made.plain(), sort_keys=False))
        for row in _of_stack(stack):
            yield row | {"where": str(file)}
