"""The keys of `up` and `attach` on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import PATIENCE, Stack, eventually

pytestmark = pytest.mark.kernel
FILE = """
services:
  web:
    image: busybox
    command: [sh, -c, "mkdir -p /app; while sleep 0.2; do echo tick; done"]
    stop_signal: SIGKILL
    develop: {watch: [{path: src, action: sync, target: /app}]}
"""
ROWS = 24


class Terminal:
    """A program on a terminal of ROWS lines."""

    def __init__(self, stack: Stack, *words: str) -> None:
        self.fd, self.slave = pty.openpty()
        self.resize(ROWS)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "env", "--default-signal=INT", sys.executable, "-m", "orchestrator", *words],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=stack.directory,
            env={**stack.pystack.environment, "TERM": "xterm"},
        )
        self.seen = b""

    def resize(self, rows: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 100, 0, 0))

    def see(self, word: str) -> bytes:
        """What comes until *word* does."""
        deadline = time.monotonic() + 30 * PATIENCE
        while word.encode() not in self.seen:
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self.fd], [], [], 0.2)[0]:
                self.seen += os.read(self.fd, 1 << 16)
        before, _, self.seen = self.seen.partition(word.encode())
        return before

    def lent(self) -> None:
        """Wait until the keys go to a container unread."""
        deadline = time.monotonic() + 30 * PATIENCE
        while termios.tcgetattr(self.slave)[3] & termios.ICANON:
            assert time.monotonic() < deadline, self.process.poll()
            time.sleep(0.02)

    def type(self, keys: str) -> None:
        self.seen = b""
        os.write(self.fd, keys.encode())

    def end(self) -> int:
        """Its exit status, when what it still says was taken from it."""
        deadline = time.monotonic() + 30 * PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self.fd], [], [], 0.1)[0]:
                self.seen += os.read(self.fd, 1 << 16)
        while select.select([self.fd], [], [], 0.1)[0]:
            self.seen += os.read(self.fd, 1 << 16)
        return self.process.returncode


@contextmanager
def terminal(stack: Stack, *words: str) -> Iterator[Terminal]:
    made = Terminal(stack, *words)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()
        os.close(made.slave)
        os.close(made.fd)


@pytest.fixture
def up(stack: Stack) -> Iterator[Terminal]:
    stack.write(FILE)
    (stack.directory / "src").mkdir()
    with terminal(stack, "compose", "-f", str(stack.file), "-p", stack.name, "up", "--menu") as made:
        made.see("tick")
        yield made


def test_files_are_watched_and_not_by_a_key(stack: Stack, up: Terminal) -> None:
    up.type("w")
    up.see("Watch enabled")
    (stack.directory / "src" / "new").write_text("one\n")

    def copied() -> None:
        assert stack.exec("web", "cat", "/app/new", check=False) == "one\n"

    eventually(copied, 20)
    up.type("w")
    up.see("Watch disabled")
    up.see("Enable watch")
    (stack.directory / "src" / "more").write_text("two\n")
    up.type("w")  # what changed meanwhile is not copied
    up.see("Watch enabled")
    assert stack.exec("web", "ls", "/app") == "new\n"


def test_what_is_watched_may_restart_a_service_that_up_follows(stack: Stack, up: Terminal) -> None:
    stack.write(FILE.replace("action: sync", "action: sync+restart"))
    up.type("d")
    assert up.end() == 0
    words = ("compose", "-f", str(stack.file), "-p", stack.name, "up", "--watch", "--menu")
    with terminal(stack, *words) as other:
        other.see("Watch enabled")
        other.see("tick")
        before = stack.ps()["web-1"]["started"]
        (stack.directory / "src" / "new").write_text("one\n")
        other.see("restarted")
        other.see("tick")
        assert stack.ps()["web-1"]["started"] != before
        assert other.process.poll() is None
        other.type("\x03")
        assert other.end() == 130


def test_the_line_stays_below_and_the_terminal_is_as_before(stack: Stack, up: Terminal) -> None:
    up.type("v")
    up.see(f"{stack.name}-web-1")
    up.type("o")
    up.see("stop_signal: SIGKILL")
    up.resize(10)
    up.see("\x1b[1;9r")  # the region that scrolls
    up.see("\x1b[10;1H")
    up.type("xX?")  # nothing
    up.see("tick")
    up.type("d")
    assert up.end() == 0
    assert "\x1b[r" in up.seen.decode()
    assert termios.tcgetattr(up.slave)[3] & termios.ICANON
    assert termios.tcgetattr(up.slave)[3] & termios.ECHO
    assert stack.ps()["web-1"]["state"] == "running"


def test_ctrl_c_stops_all_beside_the_menu(stack: Stack, up: Terminal) -> None:
    up.type("\x03")
    up.see("Gracefully stopping")
    assert up.end() == 130
    assert termios.tcgetattr(up.slave)[3] & termios.ICANON
    assert stack.ps()["web-1"]["state"] == "exited"


def test_a_key_that_cannot_says_why(stack: Stack, up: Terminal) -> None:
    up.type("d")
    assert up.end() == 0
    stack.write(FILE.partition("    develop")[0])
    with terminal(stack, "-f", str(stack.file), "up", "-p", stack.name, "--attach", "--menu") as other:
        other.see("Enable watch")
        other.type("w")
        other.see("no service has develop.watch")
        other.see("tick")


def test_no_menu_without_a_terminal_or_a_wish(stack: Stack) -> None:
    stack.write(FILE.replace("while sleep 0.2; do echo tick; done", "echo tick"))
    (stack.directory / "src").mkdir()
    done = stack.run("up", "--attach", "--menu")
    assert "\x1b" not in done.stdout + done.stderr
    with terminal(stack, "compose", "-f", str(stack.file), "-p", stack.name, "up") as made:
        assert made.end() == 0
        assert b"Enable watch" not in made.seen


def test_an_attached_terminal_is_left_by_its_keys(stack: Stack) -> None:
    stack.up("services: {a: {image: busybox, command: sh, tty: true, stdin_open: true, stop_signal: SIGKILL}}\n")
    for keys, option in (("\x10\x11", ()), ("\x01", ("--detach-keys", "ctrl-a"))):
        with terminal(stack, "-f", str(stack.file), "attach", "-p", stack.name, *option, "a") as made:
            made.lent()
            made.type("echo $((6*7)); stty size\n")
            made.see("42")
            made.see(f"{ROWS} 100")
            made.type(keys)
            assert made.end() == 0
    with terminal(stack, "-f", str(stack.file), "run", "-p", stack.name, "--rm", "--name", f"{stack.name}-own", "a") as made:
        made.lent()
        made.type("echo $((6*7))\n")
        made.see("42")
        made.type("\x10\x11")
        assert made.end() == 0
    assert [r["state"] for r in stack.ps().values()] == ["running"]
    assert stack.name + "-own" in stack.pystack("container", "ls").stdout
    stack.pystack("container", "rm", "-f", f"{stack.name}-own")


def test_signals_reach_the_process_that_is_attached_to(stack: Stack) -> None:
    stack.up(
        "services: {a: {image: busybox, stop_signal: SIGKILL,\n"
        "  command: [sh, -c, 'trap \"exit 9\" INT; while :; do echo tick; sleep 0.1; done']}}\n"
    )
    with terminal(stack, "-f", str(stack.file), "attach", "-p", stack.name, "--no-sig-proxy", "a") as made:
        made.see("tick")
        made.type("\x03")
        assert made.end() == 130
    assert stack.ps()["a-1"]["state"] == "running"
    with terminal(stack, "-f", str(stack.file), "attach", "-p", stack.name, "a") as made:
        made.see("tick")
        made.type("\x03")
        assert made.end() == 9
