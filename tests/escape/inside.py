"""The attacks that run in a container: `python3 inside.py NAME…` tries each, and prints one line of JSON about each.

An attack returns what it gained, in words; it raises OSError or Held where something held it. Each is made so that success
harms nobody: a call that would stop or change the machine is made with arguments that the kernel refuses only after it has
allowed the call. What the attacks are after is in the environment variable FIELD: see `Field` in conftest.py.

It runs with Debian's Python and the modules that kit.py puts into the image.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback

FIELD = json.loads(os.environ.get("FIELD", "{}"))
PATIENCE_S = 20
AT_FDCWD = -100
NEWNS, NEWUSER, NEWNET = 0x0002_0000, 0x1000_0000, 0x4000_0000
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
libc = ctypes.CDLL(None, use_errno=True)
ATTACKS = {}


class Held(Exception):  # noqa: N818 - it is no error: the guard did its work
    """What the attack is after is not there."""


def attack(function):
    ATTACKS[function.__name__] = function
    return function


def call(name, *arguments):
    """The system call *name*; raises OSError as the kernel answers."""
    number = FIELD["numbers"][name]
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def reach(name, *arguments, answer):
    """The call gets to where the kernel looks at its arguments, and answers *answer* to them."""
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno != getattr(errno, answer):
            raise
    else:
        raise AssertionError(f"{name} was done")
    return f"the kernel looks at the arguments of {name}"


def opens(path, flags=os.O_WRONLY):
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
    return f"{path} opened"


def has_content(path):
    with open(path, "rb") as file:
        if not file.read(64):
            raise Held("it is empty")
    return f"{path} was read"


def in_child(work):
    """What *work* returns in a child process, or raises there."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = ["gained", work()]
        except OSError as error:
            said = ["held", errno.errorcode.get(error.errno, str(error))]
        except Held as error:
            said = ["held", str(error)]
        except BaseException:
            said = ["broken", traceback.format_exc()]
        os.write(write, json.dumps(said).encode())
        os._exit(0)
    os.close(write)
    data = b""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and select.select([read], [], [], until - time.monotonic())[0]:
        if not (part := os.read(read, 1 << 16)):
            break
        data += part
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(read)
    _, status = os.waitpid(pid, 0)
    if data:
        return json.loads(data)
    return ["held", signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"]


# mounts and roots


@attack
def mount_tmpfs():
    call("mount", b"none", b"/tmp", b"tmpfs", 0, 0)
    return "a file system is mounted"


@attack
def mount_by_fsopen():
    call("fsopen", b"tmpfs", 0)
    return "a file system is made"


@attack
def clone_mount():
    call("open_tree", AT_FDCWD, b"/", 1)  # OPEN_TREE_CLONE
    return "a mount is cloned"


@attack
def pivot_root():
    return reach("pivot_root", b"/tmp", b"/tmp", answer="EBUSY")  # it is of the root's own mount


@attack
def umount_mask():
    call("umount2", b"/proc/timer_list", 0)
    return has_content("/proc/timer_list")


# names and keys


@attack
def unshare_user():
    call("unshare", NEWUSER)
    return "root of a user namespace of its own"


@attack
def keyctl():
    return reach("keyctl", 0, 0x7FFFFFFF, 0, answer="ENOKEY")  # KEYCTL_GET_KEYRING_ID of a key that is not there


@attack
def write_core_pattern():
    return opens("/proc/sys/kernel/core_pattern")


def main(names):
    for name in names:
        word, text = in_child(ATTACKS[name])
        print(json.dumps({"attack": name, word: text}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
