"""`pystack exec`, and the terminal that it lends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click

from agent.contract.frames import FrameDecoder
from orchestrator.cli.client import Client
from orchestrator.cli.options import StackOptions, stack_options
from orchestrator.errors import PystackError, RefusedError


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@stack_options
@click.option("-T", "--no-tty", is_flag=True, help="No terminal, even where there is one.")
@click.option("-i", "--interactive/--no-interactive", default=True, help="Pass standard input on.")
@click.option("-u", "--user", default="")
@click.option("-w", "--workdir", default="")
@click.option("-e", "--env", multiple=True)
@click.option("-d", "--detach", is_flag=True)
@click.option("-t", "--tty", is_flag=True, hidden=True)  # there is one where there is a terminal
@click.option("--privileged", is_flag=True)
@click.option("--index", default=0, help="Which replica; the first that runs, if not given.")
@click.argument("service")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    stack: StackOptions,
    no_tty: bool,
    interactive: bool,
    user: str,
    workdir: str,
    env: tuple[str, ...],
    detach: bool,
    privileged: bool,
    tty: bool,
    index: int,
    service: str,
    command: tuple[str, ...],
) -> None:
    """Run a command inside a task; its exit status is this one's."""
    from orchestrator.cli.selection import not_running, only

    client = Client()
    row = only(client, stack, service, index)
    if row["state"] != "running":
        raise not_running(service, index, row)
    tty = not no_tty and sys.stdin.isatty() and sys.stdout.isatty()
    wanted = {"Cmd": list(command), "User": user, "WorkingDir": workdir, "Env": list(env), "Privileged": privileged}
    raise SystemExit(run(client.at(row["node"]), row["id"], wanted, tty=tty, stdin=interactive, detach=detach))


def run(client: Client, container: str, wanted: dict[str, Any], *, tty: bool, stdin: bool, detach: bool = False) -> int:
    """Run *wanted* (an ExecConfig) and lend it this process's standard streams. Returns its exit status."""
    body = {**wanted, "Tty": tty, "AttachStdin": stdin and not detach, "AttachStdout": True, "AttachStderr": True}
    ident = client.engine("POST", f"/containers/{container}/exec", body=body)["Id"]
    if detach:
        client.engine("POST", f"/exec/{ident}/start", body={"Detach": True, "Tty": False})
        return 0
    size = list(os.get_terminal_size())[::-1] if tty else None
    connection = client.hijack(f"{client.base}/exec/{ident}/start", {"Tty": tty, "ConsoleSize": size})

    def resize() -> None:
        columns, rows = os.get_terminal_size()
        client.engine("POST", f"/exec/{ident}/resize", query={"h": rows, "w": columns})

    with raw_terminal(resize) if tty else contextlib.nullcontext():
        relay(connection, tty=tty, stdin=stdin)
    code = client.engine("GET", f"/exec/{ident}/json")["ExitCode"]
    return int(code or 0)


@contextlib.contextmanager
def raw_terminal(resize: Any) -> Iterator[None]:
    """Keys go to the other side unread; restored at the end, come what may."""
    try:
        import termios
        import tty
    except ModuleNotFoundError:
        raise PystackError("this system has no terminal that could be passed on: use -T") from None

    before = termios.tcgetattr(0)
    old = signal.signal(signal.SIGWINCH, lambda *_: resize())
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, old)


def resizer(client: Client, container: str) -> Callable[[], None]:
    """What gives *container* the size of this terminal."""

    def resize() -> None:
        columns, rows = os.get_terminal_size()
        with contextlib.suppress(RefusedError):  # it may have ended meanwhile
            client.engine("POST", f"/containers/{container}/resize", query={"h": rows, "w": columns})

    return resize


def is_left(client: Client, container: str) -> bool:
    """Whether *container*, whose streams ended here, runs on: the keys that detach were typed."""
    try:
        return bool(client.engine("GET", f"/containers/{container}/json")["State"]["Running"])
    except RefusedError:
        return False  # it is removed


PASSED_ON = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")


@contextlib.contextmanager
def signals_for(client: Client, container: str) -> Iterator[None]:
    """Signals that end a process, or are free for use, go to *container* in place of this process."""

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(RefusedError):  # it may have ended meanwhile
            client.engine("POST", f"/containers/{container}/kill", query={"signal": signal.Signals(number).name})

    numbers = [getattr(signal, name) for name in PASSED_ON if hasattr(signal, name)]
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _shown(*, tty: bool) -> Callable[[bytes], None]:
    """What writes an output as it arrives to standard output and, unless it is a terminal's, standard error."""
    decoder = FrameDecoder()

    def show(data: bytes) -> None:
        for stream, payload in ((1, data),) if tty else decoder.feed(data):
            os.write(2 if stream == 2 else 1, payload)

    return show


def relay(connection: socket.socket, *, tty: bool, stdin: bool) -> None:
    """Standard input there, its output here, until the other side ends."""
    show = _shown(tty=tty)
    if not hasattr(select, "poll"):  # Windows, whose standard input cannot be waited for beside a socket
        if stdin:
            threading.Thread(target=_carry_input, args=(connection,), daemon=True).start()
        while data := _received(connection):
            show(data)
        return
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if stdin:
        poll.register(0, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == 0:
                if not _carried_on(connection):
                    poll.unregister(0)
            elif data := _received(connection):
                show(data)
            else:
                return


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except ConnectionError:
        return b""


def _carried_on(connection: socket.socket) -> bool:
    """Send what standard input has now; False at its end, which the other side learns."""
    if data := os.read(0, 1 << 15):
        connection.sendall(data)
        return True
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    return False


def _carry_input(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while _carried_on(connection):
            pass
