"""kill -9 of the agent at each effect of a build: nothing half-made stays, and the next build goes on from what was done."""

from __future__ import annotations

import http.client
import re
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.builds import Node
from tests.conftest import Pystack
from tests.images import tar_of
from tests.kernel.test_crash import AGENT, arm, fired, leftovers, until

pytestmark = [pytest.mark.long, pytest.mark.kernel]
POINTS = sorted(
    {name for path in (AGENT / "build").rglob("*.py") for name in re.findall(r'failpoint\("([a-z.]+)"\)', path.read_text())}
)


def text(name: str) -> str:
    return (
        f"FROM busybox AS a\nRUN echo {name} > /a && sleep 0.2\nCOPY f /f\nFROM busybox\n"
        f"RUN --mount=type=cache,id={name},target=/c "
        f"touch /c/x && echo {name} > /b\nCOPY --from=a /a /f /\n"
    )


def half_made(lab: Pystack) -> list[str]:
    root = Path(lab.environment["PYSTACK_ROOT"])
    found = [
        str(p)
        for p in (
            *(root / "build" / "jobs").iterdir(),
            *(root / "layers").glob("*.tmp"),
            *(root / "images" / "blobs" / "sha256").glob("*.tmp"),
        )
    ]
    mounted = Path(f"/proc/{lab.pid('n1')}/mounts").read_text().splitlines()
    found += [line for line in mounted if f"{root}/build" in line or (f"{root}/run" in line and "/rootfs" in line)]
    return found + [f"{kind} {one}" for kind, rows in leftovers(lab).items() if kind != "mounts" for one in rows]


@pytest.mark.parametrize(("point", "count"), [(p, n) for p in POINTS for n in (1, 2)])
def test_a_build_survives_a_kill_at(lab: Pystack, point: str, count: int) -> None:
    node = Node(f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock")
    name = uuid.uuid4().hex[:8]
    arm(lab, f"{point}:{count}")
    with pytest.raises((OSError, http.client.HTTPException, IndexError, ValueError)):
        node.build(text(name), {"f": b"1"})
    assert fired(lab), f"{point} was never passed {count} times"
    until(lambda: lab("ls", check=False).returncode == 0, "an answer")
    arm(lab, "")
    until(lambda: not half_made(lab), f"nothing half-made: {half_made(lab)}")
    files = node.build(text(name), {"f": b"1"}).files()
    assert [files[n].content for n in "abf"] == [f"{name}\n", f"{name}\n", "1"]
    assert node.build(text(name), {"f": b"1"}).hits == 4


def runs(mark: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"sleep {mark}"], capture_output=True, check=False).returncode == 0


def sleeping(node: Node) -> tuple[subprocess.Popen[bytes], str]:
    """A client whose build is at a step that takes long, and by what that step is known."""
    mark = f"3{uuid.uuid4().int % 10**6:06}"
    child = subprocess.Popen(
        ["curl", "-s", "--unix-socket", node.path, "-X", "POST", "--data-binary", "@-", "http://node/build"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert child.stdin
    child.stdin.write(tar_of({"Dockerfile": f"FROM busybox\nRUN sleep {mark}\n".encode()}))
    child.stdin.close()
    until(lambda: runs(mark), "the step runs")
    return child, mark


@pytest.mark.parametrize("who", ["agent", "client"])
def test_a_step_ends_with_the_agent_and_with_who_asked(lab: Pystack, who: str) -> None:
    """What the step began is ended and taken away: at once, or by the agent that comes after."""
    child, mark = sleeping(Node(f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"))
    if who == "agent":
        arm(lab, "")
    else:
        child.kill()
    child.wait(30)
    until(lambda: not runs(mark), "the step has ended")
    until(lambda: not half_made(lab), "nothing is left")
