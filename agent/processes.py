"""Child processes of a large program: started with vfork(2), waited for over their pidfd.

uvloop forks, and a fork copies this process's page tables and makes Python's own ready in the child: 5 ms with nothing but the
agent loaded, before anything is executed. A vfork costs what the exec does.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from agent import descriptors


class ChildProcess:
    """A running program. The parameters are those of `subprocess.Popen`; pipes are the caller's to make.

    Raises OSError if it cannot be executed."""

    def __init__(self, *arguments: str, **how: Any) -> None:
        self._process = subprocess.Popen(arguments, **how)
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, the negative number of the signal that ended it, or None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Its exit status, once it has one."""
        while (code := self._process.poll()) is None:
            fd = os.pidfd_open(self.pid)  # it is not reaped yet, so the number is still its own
            try:
                await descriptors.wait_readable(fd)
            finally:
                os.close(fd)
        return code

    def send_signal(self, number: int) -> None:
        """Does nothing where it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def reset_ignored_signals() -> None:
    """Replace ignored signals (as by nohup(1)) by a handler that does nothing: SIG_IGN is inherited across execve(2), a handler
    is not, so that children start with the default action."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # those are restored by Popen
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
