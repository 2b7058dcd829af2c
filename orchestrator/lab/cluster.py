"""The servers of a lab: which one leads, and how machines become nodes of the cluster."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from orchestrator import STALE
from orchestrator.errors import PystackError
from orchestrator.lab.lab import Lab, Machine, enter

ANSWER_S = 2.0
"""How long a server may take to say that it leads; one that is stopped does not answer."""


SLOW_S = 300.0


def leader(lab: Lab) -> Machine | None:
    """The machine whose server leads, None if none does. A server that only answers from memory does not lead."""
    for machine in lab.servers:
        with contextlib.suppress(OSError, http.client.HTTPException, PystackError):
            if STALE not in _ask(lab, machine, "GET", "/v1/version", None, timeout_s=ANSWER_S):
                return machine
    return None


def wait_for_server(lab: Lab) -> Machine:
    """Wait for a server that leads, and return its machine. Raises PystackError with the end of the log after 60 s, or after
    SLOW_S where its log is still empty: on an emulated machine it may take minutes to load."""
    log, began = lab.directory / "n1" / "server.log", time.monotonic()
    while (passed := time.monotonic() - began) < 60 or (passed < SLOW_S and not (log.exists() and log.stat().st_size)):
        if found := leader(lab):
            return found
        time.sleep(0.01)
        if not lab.machines["n1"].alive():
            break
    tail = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
    raise PystackError("the lab's server does not answer: " + ("; ".join(tail) or "its log is empty"))


def add_users(lab: Lab) -> None:
    """Switch on authentication in etcd; the servers have the password. Raises PystackError."""
    words = ["etcdctl", "--endpoints", f"http://{lab.servers[0].address}:2379"]
    for command in (["user", "add", f"root:{lab.password}"], ["user", "grant-role", "root", "root"], ["auth", "enable"]):
        done = subprocess.run(
            [*enter(lab, lab.servers[0].name), *words, *command],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
        if done.returncode:
            raise PystackError(f"the users of etcd cannot be added: {done.stderr.strip()}")


def join_nodes(lab: Lab, labels: Mapping[str, Mapping[str, str]]) -> None:
    """Make all machines nodes of the cluster with their *labels*, in parallel, as `node add` does. Raises PystackError."""
    first = wait_for_server(lab)

    def join(machine: Machine) -> None:
        wanted = sorted(labels.get(machine.name, {}).items())
        if machine is first:
            if wanted:
                _ask(lab, first, "PATCH", f"/v1/nodes/{machine.name}", {"labels": wanted})
        else:
            _wait_for_agent(lab, machine)
            requested = {
                "target": f"root@{machine.address}",
                "name": machine.name,
                "labels": wanted,
                "transport": "etcd" if lab.password else "ssh",
            }
            _ask(lab, first, "POST", "/v1/nodes", requested)

    machines = [m for m in lab.machines.values() if m.role in ("node", "server")]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(join, machines))


def _wait_for_agent(lab: Lab, machine: Machine) -> None:
    """Wait until the agent of *machine* answers; its sshd is up long before. Raises PystackError after 60 s."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                return probe.connect(str(machine.directory(lab) / "run" / "docker.sock"))
            except OSError:
                time.sleep(0.01)
    raise PystackError(f"the agent of {machine.name} does not start: see {machine.directory(lab) / 'agent.log'}")


def _ask(lab: Lab, server: Machine, method: str, path: str, body: object, timeout_s: float = 60) -> http.client.HTTPMessage:
    """Call the REST API of *server*; returns the headers of its answer. Raises PystackError with the message of a refusal."""
    connection = http.client.HTTPConnection("pystack", timeout=timeout_s)
    connection.sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        connection.sock.settimeout(timeout_s)
        connection.sock.connect(str(lab.socket(server.name)))
        connection.request(method, path, body=json.dumps(body))
        reply = connection.getresponse()
        raw = reply.read()
    if reply.status >= 400:
        raise PystackError(str(json.loads(raw).get("message")))
    return reply.headers
