"""Verbs on the tasks of a stack, each an Engine API call on the container of every task that is chosen."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import StackOptions, format_option, is_compose, long_stack_options, stack_options
from orchestrator.cli.rows import tasks
from orchestrator.cli.selection import chosen, only
from orchestrator.errors import PystackError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.server.api.stacks import TaskRow

ENDED = ("exited", "failed", "created")
"""States of what `rm` removes."""


def _each(stack: StackOptions, services: tuple[str, ...], verb: str, states: tuple[str, ...], **query: Any) -> None:
    from orchestrator.cli.client import Client
    from orchestrator.cli.compose_progress import VERBS, say

    client = Client()
    in_words = is_compose()
    rows = chosen(client, stack, services)
    if in_words and not any(row["state"] in ("running", "paused", "restarting", "starting") for row in rows):
        rows = []  # these verbs leave alone what has ended. Source: docker compose
    if not rows and verb == "kill":
        click.echo("No container to kill", err=True)
    if services and rows and not any(row["state"] in states for row in rows):
        states_now = ", ".join(f"{row['task']} is {row['state']}" for row in rows)
        raise PystackError(f"nothing to {verb}: {states_now}")
    for row in rows:
        if row["state"] in states:
            if in_words:
                say("Container", row["container_name"], VERBS[verb][0])
            client.at(row["node"]).engine("POST", f"/containers/{row['id']}/{verb}", query=query or None)
            if in_words:
                say("Container", row["container_name"], VERBS[verb][1])
            else:
                click.echo(row["task"])


@click.command()
@stack_options
@click.option("-s", "--signal", "number", default="SIGKILL", help="Name or number.")
@click.option("--remove-orphans", is_flag=True, help="Remove tasks of services that left the file.")
@click.argument("services", nargs=-1)
def kill(stack: StackOptions, number: str, remove_orphans: bool, services: tuple[str, ...]) -> None:
    """Send tasks a signal; `up` or `start` brings back what it ended."""
    if remove_orphans:
        _remove_orphans(stack)
    _each(stack, services, "kill", ("running", "paused", "stopping"), signal=number)


def _remove_orphans(stack: StackOptions) -> None:
    from orchestrator.cli.client import Client
    from orchestrator.cli.rows import tasks

    client, loaded = Client(), stack.load(quiet=True)
    mine = {*(s.name for s in loaded.stack.services), *loaded.left_out}
    orphans = [row["task"] for row in tasks(client, loaded.stack.name) if row["service"] not in mine]
    if orphans:
        for event in client.events(f"/v1/stacks/{loaded.stack.name}/rm", body={"tasks": orphans}):
            del event


@click.command()
@stack_options
@click.argument("services", nargs=-1)
def pause(stack: StackOptions, services: tuple[str, ...]) -> None:
    """Freeze tasks."""
    _each(stack, services, "pause", ("running",))


@click.command()
@stack_options
@click.argument("services", nargs=-1)
def unpause(stack: StackOptions, services: tuple[str, ...]) -> None:
    """Let frozen tasks run."""
    _each(stack, services, "unpause", ("paused",))


@click.command()
@stack_options
@click.option("--down-project", is_flag=True, help="Take the stack down when the first of them has ended.")
@click.argument("services", nargs=-1, required=True)
def wait(stack: StackOptions, down_project: bool, services: tuple[str, ...]) -> None:
    """Wait for tasks to end, print their exit codes, and end with the last of them."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    from orchestrator.cli.client import Client

    client, code = Client(), 0
    rows = chosen(client, stack, services)
    if not rows:
        raise PystackError(f"there is no container of {', '.join(services)} to wait for")

    def end_of(row: TaskRow) -> int:
        return int(client.at(row["node"]).engine("POST", f"/containers/{row['id']}/wait")["StatusCode"])

    with ThreadPoolExecutor(max(1, len(rows))) as pool:
        for done in as_completed([pool.submit(end_of, row) for row in rows]):
            code = done.result()
            click.echo(code)
            if down_project:
                for event in client.events(f"/v1/stacks/{stack.name()}/down", body={}):
                    del event
                break
    raise SystemExit(code)


@click.command()
@long_stack_options
@click.option("-s", "--stop", is_flag=True, help="Stop them first.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("-v", "--volumes", is_flag=True, help="Remove their anonymous volumes too.")
@click.option("-a", "--all", "everything", is_flag=True, hidden=True)  # those of `run` go too
@click.argument("services", nargs=-1)
def rm(stack: StackOptions, stop: bool, force: bool, volumes: bool, everything: bool, services: tuple[str, ...]) -> None:
    """Remove stopped tasks, and containers of `run` that ended; `up` creates the tasks again."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Progress
    from orchestrator.server.events import StepEvent

    del everything
    client, name = Client(), stack.name()
    going = [row for row in chosen(client, stack, services) if stop or row["state"] in ENDED]
    once = [r for r in tasks(client, name, oneoff=True) if r["oneoff"] and r["state"] in ENDED]
    once = [r for r in once if not services or r["service"] in services]
    if not going and not once:
        click.echo("No stopped containers", err=True)
        return
    if not force and sys.stdin.isatty():
        click.confirm(f"remove {', '.join(row['task'] for row in (*going, *once))}?", abort=True)
    anonymous = [(row["node"], name) for row in (*going, *once) for name in _anonymous(client, row)] if volumes else []
    if is_compose():
        click.echo(f"Going to remove {', '.join(row['container_name'] for row in (*going, *once))}")
    shown = Progress()
    shown.expect_ended([row["task"] for row in going if row["state"] in ENDED])
    for row in once:
        _forget(client, name, row)
    for event in client.events(f"/v1/stacks/{name}/rm", body={"tasks": [row["task"] for row in going]}):
        if is_compose():
            shown.event(event)
        elif isinstance(event, StepEvent):
            click.echo(event.name)
    for node, volume in anonymous:
        client.at(node).engine("DELETE", f"/volumes/{volume}")


def _forget(client: Client, stack: str, row: TaskRow) -> None:
    """Remove a container of `run`, and what the cluster keeps for it."""
    from orchestrator.cli.compose_progress import say

    if is_compose():
        say("Container", row["container_name"], "Removing")
    client.at(row["node"]).engine("DELETE", f"/containers/{row['id']}")
    client.json("DELETE", f"/v1/stacks/{stack}/oneoff/{row['task']}")
    if is_compose():
        say("Container", row["container_name"], "Removed")
    else:
        click.echo(row["task"])


def _anonymous(client: Client, row: TaskRow) -> list[str]:
    """Names of the volumes that were made for this container alone: 64 hex digits, as in Docker."""
    mounts = client.at(row["node"]).engine("GET", f"/containers/{row['id']}/json")["Mounts"]
    return [m["Name"] for m in mounts if m["Type"] == "volume" and re.fullmatch("[0-9a-f]{64}", m["Name"])]


@click.command()
@stack_options
@format_option
@click.argument("services", nargs=-1)
def top(stack: StackOptions, shape: str, services: tuple[str, ...]) -> None:
    """Processes of the tasks, as the host sees them."""
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import show

    client, rows, titles = Client(), [], ["task"]
    for row in chosen(client, stack, services):
        if row["state"] == "running":
            found = client.at(row["node"]).engine("GET", f"/containers/{row['id']}/top")
            titles = ["task", *(t.lower() for t in found["Titles"])]
            rows += [dict(zip(titles, [row["task"], *line], strict=False)) for line in found["Processes"]]
    show(rows, titles, shape)


def usage_row(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """One line of `stats` from the API's document: CPU in percent of one core, sizes in bytes."""
    now, before = document["cpu_stats"], document["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now["system_cpu_usage"] - before["system_cpu_usage"]
    memory, networks = document["memory_stats"], document["networks"].values()
    pressure = document.get("pressure")  # agents of older versions have none
    blocks = document["blkio_stats"]["io_service_bytes_recursive"]
    cache = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
    return {
        "task": name,
        "cpu_percent": round(used / passed * now["online_cpus"] * 100, 2) if passed > 0 else 0.0,
        "memory": max(0, memory["usage"] - cache),
        "memory_limit": memory["limit"],
        "received": sum(n["rx_bytes"] for n in networks),
        "sent": sum(n["tx_bytes"] for n in networks),
        "read": sum(b["value"] for b in blocks if b["op"] == "read"),
        "written": sum(b["value"] for b in blocks if b["op"] == "write"),
        "pids": document["pids_stats"]["current"],
        "pressure": pressure and {kind: some["some"]["avg10"] for kind, some in pressure.items()},
        "limits": {
            name: {"ingress": n["rx_limit"], "egress": n["tx_limit"]}
            for name, n in document["networks"].items()
            if "rx_limit" in n
        },
    }


def _pressure_text(pressure: Mapping[str, float] | None) -> str:
    """`cpu 12%, io 3%`: how much of the last 10 s some of its processes waited; "" where nobody did, or nobody counts."""
    return ", ".join(f"{kind} {share:.0f}%" for kind, share in (pressure or {}).items() if share >= 1)


def _limits_text(limits: Mapping[str, Mapping[str, int]]) -> str:
    """`eth0 20mbit/10mbit`: what may be received and sent."""
    from agent.contract.bandwidth import rate_text

    return ", ".join(f"{name} {rate_text(n['ingress'])}/{rate_text(n['egress'])}" for name, n in limits.items())


def used_by(targets: Sequence[tuple[str, Client, str]]) -> list[dict[str, Any]]:
    """What each of (name, who to ask, container ID) uses: rows of `usage_row`, asked for side by side."""
    from concurrent.futures import ThreadPoolExecutor

    def ask(target: tuple[str, Client, str]) -> dict[str, Any]:
        name, client, container = target
        return usage_row(name, client.engine("GET", f"/containers/{container}/stats", query={"stream": 0}))

    with ThreadPoolExecutor(max(1, len(targets))) as pool:
        return list(pool.map(ask, targets))


def show_usage(targets: list[tuple[str, Client, str]], shape: str, *, once: bool) -> None:
    """A table of (name, who to ask, container ID), drawn once or again and again."""
    from orchestrator.cli.output import bytes_text, show

    always = ("task", "cpu_percent", "memory", "memory_limit", "received", "sent", "read", "written", "pids")
    sizes = ("memory", "memory_limit", "received", "sent", "read", "written")
    columns: tuple[str, ...] = always
    while True:
        rows = used_by(targets)
        if shape == "table":
            columns = (*always, *(name for name in ("pressure", "limits") if any(row[name] for row in rows)))
            rows = [
                row
                | {key: bytes_text(row[key]) for key in sizes}
                | {"limits": _limits_text(row["limits"]), "pressure": _pressure_text(row["pressure"])}
                for row in rows
            ]
            if not once:
                click.clear()
        show(rows, columns, shape)
        if once:
            return


@click.command()
@stack_options
@format_option
@click.option("--no-stream", is_flag=True, help="Once, instead of again and again.")
@click.option("-a", "--all", "everything", is_flag=True, hidden=True)  # what does not run uses nothing
@click.option("--no-trunc", is_flag=True, hidden=True)  # nothing is shortened
@click.argument("services", nargs=-1)
def stats(stack: StackOptions, shape: str, no_stream: bool, services: tuple[str, ...], **of_compose: bool) -> None:
    """CPU, memory, network and disk that the tasks use."""
    from orchestrator.cli.client import Client

    del of_compose
    client = Client()
    rows = [row for row in chosen(client, stack, services) if row["state"] == "running"]
    once = no_stream or shape != "table" or not sys.stdout.isatty()
    show_usage([(row["task"], client.at(row["node"]), row["id"]) for row in rows], shape, once=once)


@click.command()
@stack_options
@click.option("--protocol", type=click.Choice(["tcp", "udp"]), default="tcp")
@click.option("--index", default=0, help="Which replica; the first that runs, if not given.")
@format_option
@click.argument("service")
@click.argument("private_port", type=int)
def port(stack: StackOptions, protocol: str, index: int, shape: str, service: str, private_port: int) -> None:
    """Where a task's port is published."""
    from orchestrator.cli.client import Client

    rows = published(Client(), stack, service, index, private_port, protocol)
    if shape != "table":
        from orchestrator.cli.output import show

        show(rows, (), shape)
        return
    for row in rows:
        click.echo(f"{row['host_ip']}:{row['host_port']}")


def published(
    client: Client, stack: StackOptions, service: str, index: int, private_port: int, protocol: str
) -> list[dict[str, Any]]:
    """Where a port of a task is published: host_ip and host_port. Raises PystackError where it is not."""
    row = only(client, stack, service, index)
    found = client.at(row["node"]).engine("GET", f"/containers/{row['id']}/json")["NetworkSettings"]["Ports"]
    bound = found.get(f"{private_port}/{protocol}") or []
    if not bound:
        there = ", ".join(key for key, value in found.items() if value) or "nothing"
        raise PystackError(f"no port {private_port}/{protocol} for container {row['task']}: it publishes {there}")
    return [{"host_ip": one["HostIp"] or "0.0.0.0", "host_port": int(one["HostPort"])} for one in bound]


@click.command()
@stack_options
@click.option("--index", default=0, help="Which replica; the first that runs, if not given.")
@click.option("--no-stdin", is_flag=True)
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on, ctrl-C too (the default).")
@click.option("--detach-keys", default="", metavar="KEYS", help="Keys that leave it running; ctrl-p,ctrl-q if not given.")
@click.argument("service")
def attach(stack: StackOptions, index: int, no_stdin: bool, sig_proxy: bool, detach_keys: str, service: str) -> None:
    """Lend a task's own process this terminal; end with its exit status."""
    from orchestrator.cli.client import Client

    client = Client()
    row = only(client, stack, service, index)
    node = client.at(row["node"])
    raise SystemExit(attach_to(node, row["id"], stdin=not no_stdin, signals=sig_proxy, keys=detach_keys))


def attach_to(client: Client, container: str, *, stdin: bool, signals: bool = False, keys: str = "") -> int:
    """Streams of a running container here, until it ends. Returns its exit status; 0 where the keys that detach, *keys*, were
    typed. *signals*: it is sent those that this process gets."""
    import contextlib
    from urllib.parse import urlencode

    from orchestrator.cli.execute import is_left, raw_terminal, relay, resizer, signals_for

    config = client.engine("GET", f"/containers/{container}/json")["Config"]
    end = client.request("POST", f"{client.base}/containers/{container}/wait")
    query = f"?{urlencode({'detachKeys': keys})}" if keys else ""
    connection = client.hijack(f"{client.base}/containers/{container}/attach{query}", {})
    tty = bool(config["Tty"])
    resize = resizer(client, container)
    with contextlib.ExitStack() as stack:
        if signals:
            stack.enter_context(signals_for(client, container))
        if tty and sys.stdin.isatty():
            stack.enter_context(raw_terminal(resize))
            resize()
        relay(connection, tty=tty, stdin=stdin and bool(config["OpenStdin"]))
    if tty and is_left(client, container):
        return 0
    return int(json.loads(end.read())["StatusCode"])


@click.command()
@stack_options
@click.option("--index", default=0, help="Which replica; into all of them, or out of the first, if not given.")
@click.option("-a", "--archive", is_flag=True, hidden=True)  # modes and owners go along anyhow
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a link leads to in its place.")
@click.option("--all", "everything", is_flag=True, hidden=True)  # as it is without --index
@click.argument("source", metavar="[SERVICE:]SOURCE")
@click.argument("target", metavar="[SERVICE:]TARGET")
def cp(stack: StackOptions, index: int, archive: bool, follow_link: bool, everything: bool, source: str, target: str) -> None:
    """Copy files into or out of a task; `-` is a tar on standard input or output."""
    from orchestrator.cli import copy
    from orchestrator.cli.client import Client

    del archive, everything
    client = Client()
    if follow_link and ":" not in source:
        source = os.path.realpath(source) + ("/." if source.endswith("/.") else "")

    def find(service: str) -> list[tuple[Client, str]]:
        rows = chosen(client, stack, (service,), index)
        if not rows:
            raise PystackError(f'no container found for service "{service}"{f" (index {index})" if index else ""}')
        return [(client.at(row["node"]), row["id"]) for row in rows]

    copy.copy(find, source, target)
