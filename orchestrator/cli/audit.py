"""`pystack audit`"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import StackOptions, stack_options
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.audit.finding import Finding
    from orchestrator.cli.client import Client

COLUMNS = ("rule", "level", "where", "target", "detail", "fix")


@click.command()
@stack_options
@click.argument("node", required=False)
@click.option("--cluster", is_flag=True, help="All nodes, and all stacks as they were last brought up.")
@click.option("--format", "shape", type=click.Choice(["table", "json", "sarif"]), default="table")
@click.option("--fix", is_flag=True, help="Put right what is pystack's own: permissions of its files on the nodes.")
@click.option("--all", "everything", is_flag=True, help="What is well too.")
@click.option("--fail-on", type=click.Choice(["error", "warning", "note", "never"]), default="error", show_default=True)
def audit(stack: StackOptions, node: str | None, cluster: bool, shape: str, fix: bool, everything: bool, fail_on: str) -> None:
    """Hold a stack file, a NODE or all of the cluster against the CIS Docker Benchmark: each finding with what to change.

    Ends with 1 where a finding is as bad as --fail-on says."""
    if node and cluster:
        raise click.UsageError("--cluster is all nodes: name none")
    if fix and not (node or cluster):
        raise click.UsageError("--fix is of nodes: name one, or --cluster; a stack file is its author's")
    findings = list(_of_nodes(node, fix=fix) if node or cluster else _of_file(stack))
    _show(findings, shape, everything=everything)
    levels = ("error", "warning", "note")
    counted = levels[: levels.index(fail_on) + 1] if fail_on != "never" else ()
    if any(not f.ok and f.level in counted for f in findings):
        raise SystemExit(1)


def _of_file(stack: StackOptions) -> Iterator[Finding]:
    from orchestrator.audit.rules import examine

    loaded = stack.load()

    def place(service: str, key: str) -> str:
        return str(loaded.mark(("services", service, key)))

    for service in loaded.stack.services:
        yield from examine(service, loaded.stack.policy, place)


def _of_nodes(name: str | None, *, fix: bool) -> Iterator[Finding]:
    """A node's own findings, or those of all and of all stacks."""
    from orchestrator.cli.client import Client

    client = Client()
    names = [row["name"] for row in client.json("GET", "/v1/nodes")]
    if name and name not in names:
        raise PystackError(f"there is no node {name}: there is {', '.join(names)}")
    for one in [name] if name else names:
        if fix:
            for path in client.at(one).engine("POST", "/pystack/audit/fix"):
                click.echo(f"{one}: {path} is put right", err=True)
        yield from _of_node(client, one)
    if not name:
        for row in client.json("GET", "/v1/stacks"):
            yield from _of_stack(client, row["stack"])


def _of_node(client: Client, name: str) -> Iterator[Finding]:
    from orchestrator.audit.finding import Finding

    for one in client.at(name).engine("GET", "/pystack/audit"):
        known = {k: one[k] for k in ("rule", "title", "ok", "level", "detail", "fix") if k in one}
        yield Finding(target=f"{name}: {one['target']}", **known)


def _of_stack(client: Client, name: str) -> Iterator[Finding]:
    import msgspec

    from orchestrator.audit.rules import examine
    from orchestrator.stackfile.model import Stack

    document = client.json("GET", f"/v1/stacks/{name}")
    stack = msgspec.convert(document.get("stack", document), Stack, strict=False)
    where = {s.name: s.where for s in stack.services}

    def place(service: str, key: str) -> str:
        return where[service]

    for service in stack.services:
        for finding in examine(service, stack.policy, place):
            yield msgspec.structs.replace(finding, target=f"{name}: {finding.target}")


def _show(findings: list[Finding], shape: str, *, everything: bool) -> None:
    from orchestrator import __version__
    from orchestrator.audit import sarif
    from orchestrator.cli.output import show

    if shape == "sarif":
        return click.echo(json.dumps(sarif.document(findings, __version__), indent=2))
    chosen = [f for f in findings if everything or not f.ok]
    if shape == "json":
        score = {"passed": sum(f.ok for f in findings), "checked": len(findings)}
        return click.echo(json.dumps({"score": score, "findings": [_row(f) for f in chosen]}))
    order = {"error": 0, "warning": 1, "note": 2}
    rows = [_row(f) for f in sorted(chosen, key=lambda f: (f.ok, order[f.level]))]
    rows = [r | ({"level": "ok"} if r["ok"] else {}) for r in rows]
    if rows:
        show(rows, COLUMNS, "table")
    click.echo(f"{sum(f.ok for f in findings)} of {len(findings)} checks passed")


def _row(finding: Finding) -> dict[str, Any]:
    names = ("rule", "title", "target", "ok", "level", "detail", "fix", "where")
    return {name: getattr(finding, name) for name in names}
