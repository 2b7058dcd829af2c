"""The client far from its server: everything over SSH, streams and taken over connections included."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import Pystack, Stack


def far(
    lab: Pystack, *words: str, host: str = "ssh://root@10.99.0.1", stdin: str = "", program: str = "orchestrator"
) -> subprocess.CompletedProcess[str]:
    home = Path(f"/var/lib/pystack-lab/{lab.lab}/n1/home/.ssh")
    # no shared connection: its process would outlive the test
    alone = "-F none -o ControlMaster=no -o ControlPersist=no"
    ssh = f"ssh {alone} -i {home}/id_ed25519 -o UserKnownHostsFile={home}/known_hosts"
    return subprocess.run(
        [
            "nsenter",
            "-t",
            lab.pid("n1"),
            "-n",
            "env",
            f"PYSTACK_HOST={host}",
            f"PYSTACK_SSH_COMMAND={ssh}",
            sys.executable,
            "-m",
            program,
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        input=stdin,
    )


def test_a_stack_is_run_and_looked_at_from_elsewhere(lab: Pystack, stack: Stack) -> None:
    stack.write("services: {a: {image: busybox, command: [sh, -c, 'echo hello; sleep 1000'], stop_signal: SIGKILL}}\n")
    up = far(lab, "-f", str(stack.file), "up", "-p", stack.name)
    assert up.returncode == 0, up.stderr
    rows = json.loads(far(lab, "ps", "-p", stack.name, "--format", "json").stdout)
    assert [r["state"] for r in rows] == ["running"]
    assert "hello" in far(lab, "logs", "-p", stack.name).stdout
    inside = far(lab, "exec", "-T", "-p", stack.name, "a", "sh", "-c", "cat; exit 3", stdin="there and back")
    assert (inside.returncode, inside.stdout) == (3, "there and back")


def test_a_client_that_is_not_on_linux_does_it_too(lab: Pystack, stack: Stack) -> None:
    stack.write("services: {a: {image: busybox, command: [sh, -c, 'echo hello; sleep 1000'], stop_signal: SIGKILL}}\n")
    up = far(lab, "-f", str(stack.file), "up", "-p", stack.name, program="tests.cli.foreign")
    assert up.returncode == 0, up.stderr
    assert "hello" in far(lab, "logs", "-p", stack.name, program="tests.cli.foreign").stdout
    words = ("exec", "-T", "-p", stack.name, "a", "sh", "-c", "cat; exit 3")
    inside = far(lab, *words, stdin="there and back", program="tests.cli.foreign")
    assert (inside.returncode, inside.stdout) == (3, "there and back"), inside.stderr


def test_what_is_wrong_is_said_in_sshs_words(lab: Pystack) -> None:
    for host, why in (
        ("ssh://root@10.99.0.1:1", "Connection refused"),
        ("ssh:///x", "write ssh://"),
        ("http://10.99.0.1", "write unix:///path, ssh://user@host or tcp://"),
    ):
        failed = far(lab, "ls", host=host)
        assert failed.returncode == 1
        assert why in failed.stderr
        assert "Traceback" not in failed.stderr
