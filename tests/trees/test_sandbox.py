"""What a confined worker can do, and what it cannot: each attempt is made inside one, and outside for comparison."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.trees import confine, sandbox
from agent.trees.errors import TreeError

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of another's files need root")]
ROOT = Path(__file__).parents[2]
_libc = ctypes.CDLL(None, use_errno=True)


def called(name: str, *arguments: object) -> bool:
    if getattr(_libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
    return True


ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "read a file of the host": lambda _: Path("/etc/passwd").read_bytes(),
    "read one beside the tree": lambda tree: (tree.parent / "secret").read_bytes(),
    "list the root": lambda _: os.listdir("/") or called("no such"),
    "see other processes": lambda _: os.kill(os.getppid() or 1 << 21, 0),
    "make a socket": lambda _: socket.socket(),
    "start a program": lambda _: os.execv("/bin/true", ["true"]),
    "start another process": lambda _: os.fork() or os._exit(0),
    "mount": lambda _: called("mount", b"none", b"/", b"tmpfs", 0, None),
    "leave its namespaces": lambda _: called("unshare", 0x1000_0000),
    "set the clock": lambda _: called("settimeofday", ctypes.byref(ctypes.c_long()), None),
    "trace": lambda _: called("ptrace", 0, 0, None, None),
    "change its root": lambda _: os.chroot("/"),
    "be somebody else": lambda _: os.setresuid(1000, 1000, 1000),
    "signal": lambda _: os.kill(1, signal.SIGCONT),
}
HARMLESS_OUTSIDE = ("read a file of the host", "read one beside the tree", "list the root", "make a socket", "trace")


def confined(work: Callable[[], confine.Reply], tree: Path, **more: object) -> confine.Reply:
    """In a process of its own, since it then dies with its parent."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            fd = confine.open_tree(str(tree), read_only=False, nested=False)
            more = {"calls": sandbox.WRITE_CALLS, "capabilities": sandbox.OWNERS, **more}
            reply = confine.run(work, [fd], **more)  # type: ignore[arg-type]
            os.write(writer, repr(reply).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    os.waitpid(child, 0)
    return eval(said)  # type: ignore[no-any-return]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside")
    made = tmp_path / "tree"
    made.mkdir()
    return made


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_it_cannot(attempt: str, tree: Path) -> None:
    def work() -> confine.Reply:
        try:
            ATTEMPTS[attempt](tree)
        except (OSError, AttributeError) as error:
            return {"refused": type(error).__name__}
        return {"did": attempt}

    assert set(confined(work, tree)) == {"refused"}
    if attempt in HARMLESS_OUTSIDE:  # it is the confinement that refuses it
        child = os.fork()
        if child == 0:
            done = 1
            try:
                ATTEMPTS[attempt](tree)
                done = 0
            except (OSError, AttributeError):
                done = 0 if attempt == "list the root" else 1
            finally:
                os._exit(done)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_its_rights_are_those_that_it_was_left(tree: Path) -> None:
    def work() -> confine.Reply:
        head, data = (ctypes.c_uint32 * 2)(sandbox._CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
        called("capget", head, data)
        bounding = [n for n in range(41) if _libc.prctl(23, n, 0, 0, 0) == 1]
        return {"rights": list(data), "bounding": bounding, "no_new_privs": _libc.prctl(39, 0, 0, 0, 0)}

    numbers = sorted(sandbox.CAPABILITIES[name] for name in sandbox.OWNERS)
    low = sum(1 << n for n in numbers)
    reply = confined(work, tree, calls=(*sandbox.WRITE_CALLS, "capget", "prctl"))
    assert reply == {"rights": [low, low, 0, 0, 0, 0], "bounding": numbers, "no_new_privs": 1}


def test_no_device_of_the_tree_can_be_opened(tree: Path) -> None:
    os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    assert (
        confined(lambda: {"opened": os.open("/here/null", os.O_RDONLY)}, tree, bounds=confine.ProcessBounds(place="here"))[
            "errno"
        ]
        == errno.EACCES
    )
    os.close(os.open(tree / "null", os.O_RDONLY))


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (TreeError("a sentence", 404), {"error": "a sentence", "status": 404}),
        (OSError(errno.EIO, "broken", "f"), {"error": "broken: f", "status": 500, "errno": errno.EIO}),
        (MemoryError(), {"error": "it takes more memory than is allowed", "status": 400}),
    ],
)
def test_what_goes_wrong_is_told(raised: Exception, said: confine.Reply, tree: Path) -> None:
    def work() -> confine.Reply:
        raise raised

    assert confined(work, tree) == said


def test_a_fault_of_ours_is_told_as_ours_with_its_place_from_memory(tree: Path) -> None:
    def inner() -> int:
        return 1 // 0

    reply = confined(lambda: {"n": inner()}, tree)
    assert "a fault of pystack's, not of yours: ZeroDivisionError at test_sandbox.py:" in reply["error"]
    assert reply["trace"][-1].endswith(" inner")


def test_memory_is_bounded(tree: Path) -> None:
    assert (
        "memory" in confined(lambda: {"n": len(b"x" * (1 << 30))}, tree, bounds=confine.ProcessBounds(memory=1 << 28))["error"]
    )


def test_time_is_bounded(tree: Path) -> None:
    def work() -> confine.Reply:
        while True:
            pass

    assert "ended with status" in confined(work, tree, bounds=confine.ProcessBounds(cpu_s=1))["error"]


def test_as_nobody_it_owns_nothing(tree: Path) -> None:
    (tree / "mine").write_text("root's")
    (tree / "mine").chmod(0o600)
    reply = confined(
        lambda: {"text": Path("mine").read_text()},
        tree,
        bounds=confine.ProcessBounds(place="here", nobody=True),
        capabilities=(),
    )
    assert reply["errno"] == errno.EACCES
    assert confined(lambda: {"text": Path("/here/mine").read_text()}, tree, bounds=confine.ProcessBounds(place="here")) == {
        "text": "root's"
    }


def test_owners_of_a_user_namespace_are_those_of_the_host(tree: Path) -> None:
    os.chown(tree, 200_000, 200_000)

    def work() -> confine.Reply:
        fd = os.open("/here/f", os.O_WRONLY | os.O_CREAT, 0o600)
        os.fchown(fd, 7, 8)
        return {}

    assert confined(work, tree, bounds=confine.ProcessBounds(place="here"), first_id=200_000) == {}
    status = (tree / "f").stat()
    assert (status.st_uid, status.st_gid) == (200_007, 200_008)


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    """The child cannot be asked for its number: it holds a lock while it lives."""
    script = textwrap.dedent(f"""
        import fcntl, os, sys
        from agent.trees import confine, sandbox
        lock = os.open({str(tmp_path / "lock")!r}, os.O_RDWR | os.O_CREAT)
        fd = confine.open_tree({str(tmp_path)!r}, read_only=True, nested=False)
        def work():
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.write(1, b"+")
            while True: pass
        confine.run(work, [fd], calls=(*sandbox.READ_CALLS, "flock"), capabilities=())
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout
    assert parent.stdout.read(1) == b"+"
    parent.kill()
    parent.communicate()
    with open(tmp_path / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for its end; the test's own bound is pytest's
