"""What a confined worker can do, and what it cannot: each attempt is made inside one, and outside for comparison."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from agent.trees import sandbox
from tests.trees.attempts import ATTEMPTS

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of another's files need root")]
ROOT = Path(__file__).parents[2]
HARMLESS_OUTSIDE = ("read a file of the host", "read one beside the tree", "list the root", "make a socket", "trace")


def reply_of(case: str, tree: Path, *options: str) -> dict[str, Any]:
    """What *case* of attempts.py replies, in an interpreter of its own."""
    command = [sys.executable, "-m", "tests.trees.attempts", case, str(tree), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside")
    made = tmp_path / "tree"
    made.mkdir()
    return made


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_it_cannot(attempt: str, tree: Path) -> None:
    assert set(reply_of(attempt, tree)) == {"refused"}
    if attempt in HARMLESS_OUTSIDE:  # it is the confinement that refuses it
        assert reply_of(attempt, tree, "--outside") == {"done": True}


def test_its_rights_are_those_that_it_was_left(tree: Path) -> None:
    numbers = sorted(sandbox.CAPABILITIES[name] for name in sandbox.OWNERS)
    low = sum(1 << n for n in numbers)
    assert reply_of("rights", tree) == {"rights": [low, low, 0, 0, 0, 0], "bounding": numbers, "no_new_privs": 1}


def test_no_device_of_the_tree_can_be_opened(tree: Path) -> None:
    os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    assert reply_of("device", tree)["errno"] == errno.EACCES
    os.close(os.open(tree / "null", os.O_RDONLY))


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("error of the tree", {"error": "a sentence", "status": 404}),
        ("error of the system", {"error": "broken: f", "status": 500, "errno": errno.EIO}),
        ("error of memory", {"error": "it takes more memory than is allowed", "status": 400}),
    ],
)
def test_an_error_is_a_reply(case: str, expected: dict[str, Any], tree: Path) -> None:
    assert reply_of(case, tree) == expected


def test_a_fault_of_ours_is_told_as_ours_with_its_place_from_memory(tree: Path) -> None:
    reply = reply_of("fault", tree)
    assert "a fault of pystack's, not of yours: ZeroDivisionError at attempts.py:" in reply["error"]
    assert reply["trace"][-1].endswith(" inner")


def test_memory_is_bounded(tree: Path) -> None:
    assert "memory" in reply_of("memory", tree)["error"]


def test_time_is_bounded(tree: Path) -> None:
    assert "ended with status" in reply_of("time", tree)["error"]


def test_as_nobody_it_owns_nothing(tree: Path) -> None:
    (tree / "mine").write_text("root's")
    (tree / "mine").chmod(0o600)
    assert reply_of("file as nobody", tree)["errno"] == errno.EACCES
    assert reply_of("file", tree) == {"text": "root's"}


def test_owners_of_a_user_namespace_are_those_of_the_host(tree: Path) -> None:
    os.chown(tree, 200_000, 200_000)
    assert reply_of("owner", tree) == {}
    status = (tree / "f").stat()
    assert (status.st_uid, status.st_gid) == (200_007, 200_008)


def test_it_ends_where_its_parent_has_ended_before_it_was_bound_to_that(tmp_path: Path) -> None:
    """Without that, a worker that was killed in its first moments left a child that read its input for ever."""
    script = textwrap.dedent("""
        import os
        from agent.trees import sandbox
        def work(parent):
            os.write(1, b"+")
            os.read(parent, 1)  # it returns when the parent has ended
            sandbox.die_with_parent(parent)
            os.write(1, b"it goes on")
            return 0
        sandbox.confined(work, first_id=0, user=False)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout
    assert parent.stdout.read(1) == b"+"
    parent.kill()
    assert parent.communicate()[0] == b""


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
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for its end; the test's own bound is pytest's
