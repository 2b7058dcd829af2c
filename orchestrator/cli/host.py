"""`pystack doctor --host`: the checks of a bare machine, here or over SSH."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator import hostcheck
from orchestrator.cli.output import CONTROL, show_document
from orchestrator.hostcheck import Finding

WITHIN_S = 60


def check_hosts(targets: Sequence[str], *, everything: bool, shape: str) -> int:
    """Check this machine, or *targets* over SSH, and show what was found: all of it, or what is wrong and advice. Returns the
    exit status."""
    if targets:
        rows = [finding | {"host": target} for target in targets for finding in _far(target)]
    else:
        rows = [finding | {"host": ""} for finding in hostcheck.examine(os.environ.get("PYSTACK_ROOT") or "/var/lib/pystack")]
    wrong = sum(not row["ok"] for row in rows)
    if show_document(rows, shape):
        return bool(wrong)
    for row in rows:
        if row["ok"] and not row["fix"] and not everything:
            continue
        sign, colour = ("✗", "red") if not row["ok"] else ("!", "yellow") if row["fix"] else ("✓", "green")
        host = f"{row['host']}: " if row["host"] else ""
        click.secho(f"{sign} {host}{row['check']}: {row['target']}: {_plain(row['detail'])}", fg=colour)
        if row["fix"]:
            click.echo(f"    {_plain(row['fix'])}")
    click.echo(f"{len(rows) - wrong} checks are well" + (f", {wrong} are not" if wrong else ": this can be a host"))
    return bool(wrong)


def _plain(text: object) -> str:
    return CONTROL.sub("", str(text))


def _far(target: str) -> list[Finding]:
    """The findings of a host over SSH: as many sentences as there are reasons that it cannot be asked."""
    host, _, port = (
        target.rpartition(":") if target.rpartition(":")[2].isdecimal() and target.count(":") == 1 else (target, "", "")
    )
    command = [
        *shlex.split(os.environ.get("PYSTACK_SSH_COMMAND", "ssh")),
        *("-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
        *(("-p", port) if port else ()),
        "--",
        host,
        "python3 -",
    ]
    source = Path(hostcheck.__file__).read_bytes()
    try:
        done = subprocess.run(command, input=source, capture_output=True, timeout=WITHIN_S, check=False)
    except FileNotFoundError:
        return [_unreached(target, f"the program {command[0]} is not here", "install an SSH client")]
    except subprocess.TimeoutExpired:
        return [_unreached(target, f"no answer within {WITHIN_S} s", f"see what `ssh {target} true` waits for")]
    errors = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    if done.returncode == 127:
        return [_unreached(target, "no python3 there", "apt-get install python3 (dnf install python3)")]
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
        rows: list[Finding] = [
            {key: row[key] for key in ("check", "target", "ok", "detail", "fix")} for row in answer["findings"]
        ]
        return [*rows, hostcheck.skew(float(answer["time"]), time.time(), target), *_way(host, str(answer["connection"]))]
    except (ValueError, KeyError, TypeError):
        why = errors[-1] if errors else "it gave no reason"
        return [
            _unreached(target, why, f"`ssh {target} python3 --version` must work without a password: Python 3.11 is needed")
        ]


def _unreached(target: str, detail: str, fix: str) -> Finding:
    return {"check": "ssh", "target": target, "ok": False, "detail": detail, "fix": fix}


def _way(host: str, connection: str) -> list[Finding]:
    """Advice where the address that we go to is not the host's own. *connection*: SSH_CONNECTION there, as sshd(8) has it."""
    words = connection.split()
    if len(words) != 4:
        return []
    name = host.rpartition("@")[2]
    try:
        reached = {str(info[4][0]) for info in socket.getaddrinfo(name, None)}
    except OSError:
        reached = set()  # a name of ssh_config alone
    if words[2] in reached:
        return [{"check": "address", "target": name, "ok": True, "detail": f"its own, {words[2]}", "fix": ""}]
    detail = f"a NAT or jump host is on the way: the host itself is {words[2]}"
    fix = f"`pystack node add {host} --underlay {words[2]}`, or the address by which the other nodes reach it"
    return [{"check": "address", "target": name, "ok": True, "detail": detail, "fix": fix}]
