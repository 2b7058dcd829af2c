"""Sockets that systemd made are taken over; nobody else's are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SERVER = """
import os, sys
from pathlib import Path
if sys.argv[2] == "ours":
    os.environ["LISTEN_PID"] = str(os.getpid())
os.dup2(int(sys.argv[3]), 3)
os.set_inheritable(3, True)
from agent import activation
from agent.daemon import bind
path = Path(sys.argv[1])
for _ in range(2):  # a server that loses and gains the lead listens again
    sock = bind(path)
    sock.listen()
    print(path.stat().st_ino, flush=True)
    sock.close()
activation.unlink(path)
print(path.exists(), "LISTEN_FDS" in os.environ, flush=True)
"""


@pytest.mark.parametrize("whose", ["ours", "another's"])
def test_a_socket_of_systemds_is_served_and_stays(tmp_path: Path, whose: str) -> None:
    path = tmp_path / "pystack.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen()
        before = str(path.stat().st_ino)
        done = subprocess.run(
            [sys.executable, "-c", SERVER, str(path), whose, str(made.fileno())],
            pass_fds=[made.fileno()],
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    first, second, end = done.stdout.splitlines()
    assert (first == second == before) is (whose == "ours")
    assert end == ("True False" if whose == "ours" else "False False")
