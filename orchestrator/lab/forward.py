"""`lab forward`: a port of a machine, on 127.0.0.1 of the host."""

from __future__ import annotations

import socket
import subprocess
import sys

from agent.contract.processes import start_time
from orchestrator.errors import PystackError
from orchestrator.lab.lab import Lab, Relay


def forward(lab: Lab, node: str, port: int, local: int) -> int:
    """Make *port* of *node* answer on port *local* of 127.0.0.1, 0 for any; returns the local port. Lasts until `lab down`.

    Raises PystackError."""
    machine = lab.machine(node)
    for known in lab.relays:
        if known.target == f"{node}:{port}" and local in (0, known.local) and start_time(known.pid) == known.started:
            return known.local
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", local))
    except OSError as error:
        raise PystackError(f"port {local} on 127.0.0.1: {error.strerror}: choose another one") from error
    listener.listen(128)
    relay = [sys.executable, "-E", "-s", "-m", "orchestrator.lab.relay", str(listener.fileno()), machine.address, str(port)]
    process = subprocess.Popen(
        ["nsenter", "-t", str(machine.pid), "-n", "--", *relay],
        pass_fds=(listener.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    number = int(listener.getsockname()[1])
    listener.close()
    lab.relays.append(Relay(pid=process.pid, started=start_time(process.pid), local=number, target=f"{node}:{port}"))
    lab.save()
    process.returncode = 0  # it keeps running: this process does not wait for it
    return number
