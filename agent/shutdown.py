"""`python -m agent.shutdown`: what systemd runs before it stops the agent (ExecStop of the units).

Where the machine is going down, the node's tasks go to other nodes first, as with `pystack node drain`, for --within seconds
at most; the node gets tasks again when it is back. A restart of the agent alone drains nothing. Never fails: a machine that is
to go down goes down. Source: systemd.service(5), ExecStop; systemctl(1), is-system-running.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import subprocess
import sys
from pathlib import Path

from agent.paths import locate

ANSWER_S = 5.0
"""What an answer may take beyond what was asked for."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("agent", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def machine_goes_down() -> bool:
    """Whether systemd is shutting the machine down."""
    done = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "stopping"


def depart(agent: Path, within_s: float) -> bool:
    """Have the node emptied whose agent answers at the socket *agent*. Returns whether it is. Raises OSError, HTTPException."""
    connection = _Unix(agent, within_s + ANSWER_S)
    try:
        connection.request("POST", f"/pystack/departure?within={within_s:g}")
        reply = connection.getresponse()
        return reply.status == 200 and b"true" in reply.read()
    finally:
        connection.close()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m agent.shutdown", description=__doc__)
    parser.add_argument("--within", type=float, default=60.0, metavar="S", help="how long the node may take to be emptied")
    parser.add_argument("--anyhow", action="store_true", help="also where the machine is not going down")
    given = parser.parse_args()
    if not given.anyhow and not machine_goes_down():
        return
    try:
        emptied = depart(locate().docker_socket, given.within)
    except (OSError, http.client.HTTPException) as error:
        print(f"the agent does not answer, so nothing was moved: {error}", file=sys.stderr)
        return
    print("the node is empty" if emptied else "some tasks are still on the node, and end with it")


if __name__ == "__main__":
    main()
