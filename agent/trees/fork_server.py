"""Forks workers: `python -m agent.trees.fork_server SOCKET`, one for each agent while it needs workers.

It has loaded the modules of all workers, which costs more than most of their jobs, and reads nothing but the agent's orders.
A worker is a fork of it, so that none sees what another has seen. It has the descriptors of its order and no other; from there
on it is what a process of its own would be (`agent.trees.confine`).

SOCKET is a descriptor of a socket with whole messages, JSON. With the order {"job": NUMBER, "worker": MODULE, "arguments": […]}
come standard input, output and error of the job; {"job": NUMBER} alone kills it. {"job": NUMBER, "status": STATUS} tells that
it has ended, with the status as in `subprocess.Popen.returncode`. The end of the socket ends this process, and so all jobs.
Source: unix(7), SCM_RIGHTS; pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from agent.trees import (
    clamp,
    confine,
    context,
    copying,
    filling,
    headers,
    layer,
    listing,
    members,
    packages,
    packing,
    sandbox,
    transfer,
)

ORDER_BYTES = 1 << 20
WORKERS: dict[str, Callable[..., int]] = {
    "clamp": clamp.main,
    "context": context.main,
    "copying": copying.main,
    "filling": filling.main,
    "headers": headers.main,
    "layer": layer.main,
    "listing": listing.main,
    "members": members.main,
    "packages": packages.main,
    "packing": packing.main,
    "transfer": transfer.main,
}
FAILED = 70


class ForkServer:
    """Serves the agent at the other end of *agent*."""

    def __init__(self, agent: socket.socket) -> None:
        self._agent = agent
        self._polled = select.poll()
        self._polled.register(agent, select.POLLIN)
        self._jobs: dict[int, tuple[int, int]] = {}
        """Their numbers and processes, by their pidfds."""

    def serve(self) -> None:
        """Do what is ordered, until the agent's end is closed."""
        while True:
            for fd, _ in self._polled.poll():
                if fd != self._agent.fileno():
                    self._ended(fd)
                elif not self._ordered():
                    return

    def _ordered(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._agent, ORDER_BYTES, 3)
        if not data:
            return False
        order = json.loads(data)
        if descriptors:
            self._start(order, descriptors)
        else:
            for number, pid in self._jobs.values():  # not reaped yet, so the process ID is still its own
                if number == order["job"]:
                    os.kill(pid, signal.SIGKILL)
        return True

    def _start(self, order: dict[str, Any], descriptors: list[int]) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # no room for more processes or memory
            self._tell(order["job"], FAILED)
        else:
            if pid == 0:
                _work(order, descriptors, server)
            fd = os.pidfd_open(pid)
            self._jobs[fd] = (order["job"], pid)
            self._polled.register(fd, select.POLLIN)
        finally:
            for fd in descriptors:
                os.close(fd)

    def _ended(self, fd: int) -> None:
        number, pid = self._jobs.pop(fd)
        self._polled.unregister(fd)
        os.close(fd)
        self._tell(number, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def _tell(self, number: int, status: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # the next order is the end
            self._agent.send(json.dumps({"job": number, "status": status}).encode())


def _work(order: dict[str, Any], descriptors: list[int], server: int) -> NoReturn:
    """The process of a job."""
    status = FAILED
    try:
        for number, fd in enumerate(descriptors):
            os.dup2(fd, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sandbox.die_with_parent()
        if os.getppid() == server:
            status = _done(order)
    finally:
        os._exit(status)


def _done(order: dict[str, Any]) -> int:
    try:
        status = WORKERS[order["worker"]](*order["arguments"])
    except BaseException as error:  # of any kind: nothing may format a traceback here
        status = confine.answer(confine.as_reply(error))
    sys.stdout.flush()
    return status


def main(fd: int) -> None:
    """Serve the agent at the other end of the socket *fd*."""
    sandbox.die_with_parent()
    sandbox.load_seccomp()  # once for all workers
    gc.collect()
    gc.freeze()  # a collection in a worker would copy all pages of this process
    ForkServer(socket.socket(fileno=fd)).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
