"""Logs: rotation that loses nothing while it is watched, bounds that hold, and drivers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Stack, eventually

pytestmark = pytest.mark.kernel


def folder(stack: Stack, task: str) -> Path:
    return Path(stack.pystack.environment["PYSTACK_ROOT"]) / "containers" / str(stack.ps()[task]["id"])


def following(stack: Stack, service: str) -> subprocess.Popen[str]:
    words = ["-f", str(stack.file), "logs", "-p", stack.name, "-f", "--no-log-prefix", service]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words],
        env=stack.pystack.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(60 * PATIENCE, process.kill)  # a line that never comes is a failure, not a test without end
    guard.daemon = True
    guard.start()
    return process


def test_a_flood_stays_within_its_bounds_and_others_are_served(stack: Stack) -> None:
    stack.up("""
services:
  flood:
    image: busybox
    command: sh -c "yes $$(head -c 200 /dev/zero | tr '\\\\0' x) | head -n 400000; echo last; sleep 1000"
    stop_signal: SIGKILL
    logging: {options: {max-size: 2m, max-file: "3"}}
  quiet: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
""")
    follow = following(stack, "flood")
    assert follow.stdout
    for line in follow.stdout:
        if line == "last\n":
            break
    else:
        raise AssertionError("the last line never came")
    follow.kill()
    follow.communicate()
    files = sorted(p.name for p in folder(stack, "flood-1").glob("log*"))
    assert files == ["log", "log.1", "log.2"]
    # 92 MB were written as fast as conmon can; what is kept is what came between a few looks, and a busy machine looks late
    assert sum(p.stat().st_size for p in folder(stack, "flood-1").glob("log*")) < 75 << 20
    assert stack.exec("quiet", "echo", "here") == "here\n"
    assert stack.run("logs", "--no-log-prefix", "-n", "1", "flood").stdout == "last\n"


def test_a_follower_misses_nothing_over_rotations(stack: Stack) -> None:
    """Numbered lines, faster than rotation looks: each arrives once and in order."""
    stack.write("""
services:
  count:
    image: busybox
    command:
      - sh
      - -c
      - "echo line -1; while [ ! -e /go ]; do sleep 0.05; done; i=0;
        while [ $$i -lt 12000 ]; do echo line $$i; i=$$((i+1)); [ $$((i % 400)) -ne 0 ] || sleep 0.05; done; sleep 1000"
    stop_signal: SIGKILL
    logging: {options: {max-size: 40k, max-file: "9"}}
""")
    stack.up()
    done = following(stack, "count")
    assert done.stdout
    assert next(iter(done.stdout)).split()[1] == "-1"  # it follows: what comes now must not be lost
    stack.run("exec", "-T", "count", "touch", "/go")
    seen = []
    for line in done.stdout:
        seen.append(int(line.split()[1]))
        if seen[-1] == 11999:
            break
    done.kill()
    done.communicate()
    assert seen == list(range(seen[0], 12000))
    assert seen[0] == 0
    assert len(list(folder(stack, "count-1").glob("log*"))) > 2
    text = stack.run("logs", "--no-log-prefix", "-n", "3000", "count").stdout
    assert [int(line.split()[1]) for line in text.splitlines()] == list(range(9000, 12000)), "a tail over several files"


def test_a_service_without_a_log(stack: Stack) -> None:
    stack.up("""
services:
  a: {image: busybox, command: sh -c "echo x; sleep 1000", stop_signal: SIGKILL, logging: {driver: none}}
""")
    done = stack.run("logs", check=False)
    assert "logging driver does not support reading" in done.stderr
    assert not list(folder(stack, "a-1").glob("log*"))


RECEIVER = """
import os, socket, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("", 5514))
tcp = socket.create_server(("", 5514))
print("ready", flush=True)
if sys.argv[1] == "udp":
    while True:
        print(udp.recv(65536).decode(), flush=True)
wire = tcp.accept()[0].makefile("rb")
while size := b"".join(iter(lambda: wire.read(1), b" ")):
    print(wire.read(int(size)).decode(), flush=True)
"""


@contextmanager
def syslog_server(stack: Stack, protocol: str) -> Iterator[Callable[[str], str]]:
    """A syslog server on the LAN; what it gives waits for a message with a word in it."""
    words = [
        sys.executable,
        "-m",
        "orchestrator",
        "lab",
        "exec",
        "--name",
        stack.pystack.lab,
        "outside",
        "--",
        sys.executable,
        "-c",
        RECEIVER,
        protocol,
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        guard = threading.Timer(60 * PATIENCE, process.kill)
        guard.start()

        def hear(word: str) -> str:
            assert process.stdout
            for line in process.stdout:
                if word in line:
                    return line
            raise AssertionError(f"nothing with {word!r} came")

        try:
            hear("ready")
            yield hear
        finally:
            guard.cancel()
            process.stdin.close()  # the receiver on the other machine ends with it
            process.wait(10)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_lines_go_to_a_syslog_server_too(stack: Stack, protocol: str) -> None:
    with syslog_server(stack, protocol) as hear:
        stack.up(f"""
services:
  a:
    image: busybox
    command: [sh, -c, "echo out; echo err >&2; while [ ! -e /go ]; do sleep 0.1; done; echo late; sleep 1000"]
    stop_signal: SIGKILL
    logging:
      driver: syslog
      options: {{syslog-address: "{protocol}://10.99.0.254:5514", tag: mine, syslog-facility: local0}}
""")
        assert re.match(r"<134>1 \d{4}-\d\d-\d\dT[\d:.]+\+00:00 n1 mine - - - out\n", hear("out"))
        assert hear("err").startswith("<131>1 ")
        assert stack.run("logs").stdout.endswith("| out\n")
        stack.exec("a", "touch", "/go")
        hear("late")


def test_what_was_said_while_the_agent_was_away_is_sent_afterwards(stack: Stack) -> None:
    with syslog_server(stack, "udp") as hear:
        stack.up("""
services:
  a:
    image: busybox
    command: [sh, -c, "i=0; while sleep 0.1; do i=$$((i+1)); echo line $$i.; done"]
    stop_signal: SIGKILL
    logging: {driver: syslog, options: {syslog-address: "udp://10.99.0.254:5514"}}
""")
        hear("line 3.")
        stack.pystack("lab", "fault", "--name", stack.pystack.lab, "kill", "n1", "server")
        seen = [int(hear("line").rpartition("line ")[2].strip(". \n")) for _ in range(60)]
        assert set(range(min(seen), max(seen) + 1)) == set(seen), "none is lost"
        eventually(lambda: stack.run("ps"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{driver: syslog, options: {syslog-address: 'ftp://x'}}", "udp://HOST:PORT"),
        ("{driver: syslog, options: {syslog-facility: mine}}", "one of kern"),
        ("{driver: journald}", "no journal on this node"),
    ],
)
def test_a_logging_driver_that_cannot_work_is_said(stack: Stack, options: str, said: str) -> None:
    refused = stack.up(f"services: {{a: {{image: busybox, command: 'true', logging: {options}}}}}", check=False)
    assert refused.returncode == 1
    assert said in refused.stderr


def test_since_and_until_are_times_or_how_long_ago(stack: Stack) -> None:
    stack.up("""
services:
  a:
    image: busybox
    command: sh -c "echo first; until test -e /go; do sleep 0.05; done; echo second; sleep 1000"
    stop_signal: SIGKILL
""")

    def said(word: str) -> str:
        text = stack.run("logs", "--no-log-prefix", "-t", "a").stdout
        assert word in text
        return str(next(line for line in text.splitlines() if word in line).split()[0])

    eventually(lambda: said("first") and None, 10)
    between = said("first")
    stack.exec("a", "touch", "/go")
    eventually(lambda: said("second") and None, 10)
    words = ("logs", "--no-log-prefix")
    assert stack.run(*words, "--since", "1h", "a").stdout.split() == ["first", "second"]
    assert stack.run(*words, "--until", "1h30m", "a").stdout == ""
    assert stack.run(*words, "--since", said("second"), "a").stdout.split() == ["second"]
    assert stack.run(*words, "--until", between, "a").stdout.split() == ["first"]
    assert stack.run(*words, "--since", "2100-01-01", "a").stdout == ""
    wrong = stack.run(*words, "--since", "yesterday", check=False)
    assert wrong.returncode == 2
    assert "'yesterday': write how long ago (10m, 1h30m), a time" in wrong.stderr
    ident = stack.ps()["a-1"]["id"]
    docker = f"{stack.pystack.environment['PYSTACK_ROOT']}/run/docker.sock"
    url = f"http://node/containers/{ident}/logs?stdout=1&since=yesterday"
    asked = stack.pystack.on("n1", "curl", "-s", "--unix-socket", docker, url)
    assert 'since: failed to parse value as time or duration: "yesterday"' in json.loads(asked)["message"]


def test_what_scripts_read(stack: Stack) -> None:
    stack.up("""
services:
  a:
    image: busybox
    command: sh -c "echo 'one \\"é'; echo two >&2; sleep 1000"
    ports: ["127.0.0.1:18083:80"]
    stop_signal: SIGKILL
""")

    def written() -> None:
        assert stack.run("logs", "--format", "json").stdout.count("\n") == 2

    eventually(written, 10)
    found = [json.loads(line) for line in stack.run("logs", "--format", "json").stdout.splitlines()]
    assert [{k: v for k, v in o.items() if k != "time"} for o in sorted(found, key=lambda o: o["stream"])] == [
        {"task": f"{stack.name}-a-1", "stream": "stderr", "line": "two"},
        {"task": f"{stack.name}-a-1", "stream": "stdout", "line": 'one "é'},
    ]
    published = json.loads(stack.run("port", "--format", "json", "a", "80").stdout)
    assert published == [{"host_ip": "127.0.0.1", "host_port": 18083}]
