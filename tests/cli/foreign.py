"""Runs the command as a system would that is not Linux: without the modules, functions and sockets that Windows lacks, and
without any distribution but the client's.

Not a stand-in for one of those systems: what is taken away raises where it is used, which is what the client must not do.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess  # noqa: F401 - it and those below choose their ways before anything is taken away
import sys
import tarfile  # noqa: F401
import tempfile  # noqa: F401
import threading  # noqa: F401

MODULES = {"fcntl", "termios", "tty", "pty", "pwd", "grp", "resource", "syslog", "readline"}
DISTRIBUTIONS = {"aiohttp", "asyncssh", "cryptography", "etcd3", "google", "grpc", "networkx", "numpy", "pyroute2", "uvloop"}
OF_OS = (
    *("geteuid", "getuid", "getgid", "getegid", "getgroups", "fork", "setsid", "mkfifo", "pidfd_open", "sched_getaffinity"),
    *("uname", "chown", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_PATH", "O_NONBLOCK", "O_NOCTTY"),
)


class _Absent:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in MODULES | DISTRIBUTIONS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _pair_over_tcp(*_: object) -> tuple[socket.socket, socket.socket]:
    """As Windows has it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        return near, listening.accept()[0]


def take_away() -> None:
    os.environ.setdefault("USERNAME", "somebody")  # Windows always has it
    for name in MODULES | DISTRIBUTIONS:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Absent())
    import select

    socket.socketpair = _pair_over_tcp  # type: ignore[assignment]
    for module, names in (
        (os, OF_OS),
        (socket, ("AF_UNIX", "MSG_DONTWAIT", "SCM_RIGHTS")),
        (signal, ("SIGWINCH", "SIGHUP", "SIGQUIT", "SIGCHLD", "SIGUSR1")),
        (select, ("poll", "epoll")),
    ):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)


if __name__ == "__main__":
    take_away()
    from orchestrator.__main__ import main

    main()
