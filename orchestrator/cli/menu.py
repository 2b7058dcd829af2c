"""The keys of an attached `up` on a terminal, and the line that names them.

The line stands below the region that scrolls, so what containers put out never runs over it. Source: console_codes(4), DECSTBM,
DECSC; termios(3).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import click
from click.globals import push_context

from orchestrator.errors import PystackError

CLEAR, SAVE, RESTORE = "\x1b[2K", "\x1b7", "\x1b8"


class Key(NamedTuple):
    """What a key does. *label* is its name in the line, asked for whenever the line is drawn."""

    label: Callable[[], str]
    act: Callable[[], None]


def possible() -> bool:
    """Whether there is a terminal of which this process may read the keys."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or sys.platform == "win32":
        return False
    return os.tcgetpgrp(0) == os.getpgrp()


@contextlib.contextmanager
def shown(keys: Mapping[str, Key]) -> Iterator[None]:
    """Show *keys* in the last line of the terminal and do what is typed, in a thread, until the block ends. ctrl-C stays what
    it is; the terminal is as before in the end."""
    import termios

    before = termios.tcgetattr(0)
    mode = termios.tcgetattr(0)
    mode[3] &= ~(termios.ICANON | termios.ECHO)
    mode[6][termios.VSUSP] = os.fpathconf(0, "PC_VDISABLE").to_bytes(1, "little")  # a stopped one would leave the line behind
    line = _Line(keys)
    ending, end = os.pipe()
    reader = threading.Thread(target=_read, args=(keys, line, ending, click.get_current_context()), daemon=True)
    resized = signal.signal(signal.SIGWINCH, lambda *_: line.draw(again=True))
    try:
        termios.tcsetattr(0, termios.TCSADRAIN, mode)
        line.draw(again=True)
        reader.start()
        yield
    finally:
        signal.signal(signal.SIGWINCH, resized)
        os.close(end)
        reader.join(1)
        line.clear()
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _read(keys: Mapping[str, Key], line: _Line, ending: int, context: click.Context) -> None:
    """Do what is typed until *ending* is closed, or the terminal is gone, as the command of *context*."""
    push_context(context)
    while ending not in (ready := select.select([0, ending], [], [])[0]) and ready:
        for key in os.read(0, 64).decode(errors="replace") or "\x04":
            if key == "\x04":
                return  # the terminal is gone
            if (found := keys.get(key.lower())) is None:
                continue
            try:
                found.act()
            except PystackError as error:
                click.secho(str(error), fg="red", err=True)
            line.draw()


class _Line:
    """The last line of the terminal."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._keys = keys

    def draw(self, *, again: bool = False) -> None:
        """Write it; *again*: the terminal has another size than before, or none was written yet."""
        columns, rows = os.get_terminal_size(1)
        text = "   ".join(f"{key} {entry.label()}" for key, entry in self._keys.items())[: max(columns - 1, 0)]
        # the line feed makes room where the cursor is on the last line; setting the region moves the cursor
        region = f"\n\x1b[A{SAVE}\x1b[1;{max(rows - 1, 1)}r{RESTORE}" if again else ""
        _write(f"{region}{SAVE}\x1b[{rows};1H{CLEAR}\x1b[7m{text}\x1b[0m{RESTORE}")

    def clear(self) -> None:
        """Take it away: the whole terminal scrolls again."""
        _write(f"{SAVE}\x1b[r\x1b[{os.get_terminal_size(1).lines};1H{CLEAR}{RESTORE}")


def _write(text: str) -> None:
    sys.stdout.flush()
    os.write(1, text.encode())
