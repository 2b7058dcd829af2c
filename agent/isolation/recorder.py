"""A process of its own: is asked about each system call of one container, and lets it go on; writes down which there are.

    python -m agent.isolation.recorder LISTENER FILE

LISTENER is the number of a descriptor at which the runtime hands over the container's filters; FILE gets the names of calls, a
list of JSON, whenever a new one is seen. It ends when all processes below the filters have ended, or when none came.

Where this process is killed, all further calls of the container fail: what is observed is a container for trial.
Source: seccomp_unotify(2); seccomp.h; seccomp_syscall_resolve_num_arch(3).
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import json
import os
import select
import socket
import struct
import sys
from pathlib import Path

NOTIFICATION = struct.Struct("=QIIiIQ6Q")
"""struct seccomp_notif: id, pid, flags; then struct seccomp_data: nr, arch, instruction pointer, arguments."""
ANSWER = struct.Struct("=QqiI")
"""struct seccomp_notif_resp: id, val, error, flags."""
RECEIVE = 0xC000_2100 | NOTIFICATION.size << 16
SEND = 0xC000_2101 | ANSWER.size << 16
"""SECCOMP_IOCTL_NOTIF_RECV and _SEND: _IOWR('!', 0 and 1, …). Source: ioctl(2), seccomp.h."""
CONTINUE = 1
"""SECCOMP_USER_NOTIF_FLAG_CONTINUE, since Linux 5.5."""
FIRST_S = 90.0
"""How long to wait for the first filter: a runtime that failed hands none over."""
X32 = 0x4000_0000


def _resolver() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2")  # runc and crun come with it
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    library.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
    return library


class Recorder:
    """Answers the notifications of any number of filters."""

    def __init__(self, listener: socket.socket, file: Path) -> None:
        self.listener = listener
        self.file = file
        self.filters: set[int] = set()
        self._seen: set[tuple[int, int]] = set()
        self._names: set[str] = set()
        self._libseccomp = _resolver()
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def run(self) -> None:
        """Until all filters are gone."""
        while ready := self._poll.poll(None if self.filters else int(FIRST_S * 1000)):
            for fd, events in ready:
                if fd == self.listener.fileno():
                    self._take()
                elif events & select.POLLIN:
                    self._answer(fd)
                else:  # no process is below it any more
                    self._poll.unregister(fd)
                    self.filters.discard(fd)
                    os.close(fd)
                    if not self.filters:
                        return

    def _take(self) -> None:
        """Take the descriptor of a filter: of the container, or of a command that is executed in it."""
        connection, _ = self.listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(4 * 16))
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) // numbers.itemsize * numbers.itemsize])
                for fd in numbers:
                    self.filters.add(fd)
                    self._poll.register(fd, select.POLLIN)

    def _answer(self, fd: int) -> None:
        buffer = bytearray(NOTIFICATION.size)
        try:
            fcntl.ioctl(fd, RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # who called is dead by now
                return
            raise
        ident, _, _, number, architecture, *_ = NOTIFICATION.unpack(buffer)
        if (architecture, number) not in self._seen:
            self._note(architecture, number)
        try:
            fcntl.ioctl(fd, SEND, bytearray(ANSWER.pack(ident, 0, 0, CONTINUE)))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def _note(self, architecture: int, number: int) -> None:
        self._seen.add((architecture, number))
        plain = number & ~X32 if number > 0 else number
        found = self._libseccomp.seccomp_syscall_resolve_num_arch(architecture, plain)
        if not found:
            return
        self._names.add(ctypes.string_at(found).decode())
        beside = self.file.with_suffix(".new")
        try:
            beside.write_text(json.dumps(sorted(self._names)))
            beside.replace(self.file)
        except OSError:  # the container's folder goes when it does
            return


def main() -> None:
    """Record until the container has ended."""
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        path = Path(listener.getsockname())
        try:
            Recorder(listener, Path(sys.argv[2])).run()
        finally:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
