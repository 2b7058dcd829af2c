"""kill -9 of the server at each of its effects: the same `up` then succeeds, and after `down` nothing is left over."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Pystack, Stack
from tests.images import archive, tar_of
from tests.kernel.test_registry import registry

__all__ = ("registry",)  # a fixture
pytestmark = [pytest.mark.long, pytest.mark.kernel]
AGENT = Path(__file__).resolve().parents[2] / "agent"
POINTS = sorted({name for path in AGENT.rglob("*.py") for name in re.findall(r'failpoint\("([a-z.]+)"\)', path.read_text())})
IMAGE = [n for n in POINTS if n.startswith(("image.", "layer."))]
ELSEWHERE = ("move.", "volume.mount", "build.", "backup.")  # test_volumes.py, test_build_crash.py, test_backup.py
STACK = (
    "services:\n"
    "  a: {image: busybox, command: httpd -f -p 80 -h /var/www, ports: ['8085:80'], volumes: ['data:/srv'],\n"
    "    stop_grace_period: 0s}\n"
    "  b: {image: busybox, command: sleep 1000, stop_grace_period: 0s, volumes: ['/srv'], depends_on: [a]}\n"
    "volumes: {data: {}}\n"
)


def arm(lab: Pystack, point: str) -> None:
    """The server starts anew, and ends at *point*."""
    root = Path(lab.environment["PYSTACK_ROOT"])
    before = (root / "run/server.pid").read_text()
    (root / "failpoint").write_text(point)
    lab("lab", "fault", "--name", lab.lab, "kill", "n1", "agent")
    until(lambda: (root / "run/server.pid").read_text() != before and not (root / "failpoint").exists(), "a new server")
    until(lambda: lab("ls", check=False).returncode == 0, "an answer")


def until(holds: object, what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds * PATIENCE
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def fired(lab: Pystack) -> bool:
    """The armed server is gone: the init has started another since, without a failpoint."""
    pid = (Path(lab.environment["PYSTACK_ROOT"]) / "run/server.pid").read_text()
    done = lab("lab", "exec", "--name", lab.lab, "n1", "--", "cat", f"/proc/{pid}/environ", check=False)
    return done.returncode != 0 or "PYSTACK_FAILPOINT" not in done.stdout


def retry(lab: Pystack, *words: str) -> subprocess.CompletedProcess[str]:
    """As a user who runs the command again while the server comes back."""
    for _ in range(50):
        done = lab(*words, check=False)
        if done.returncode == 0:
            return done
        time.sleep(0.1)
    raise AssertionError(f"{words}: {done.stderr}")


def leftovers(lab: Pystack) -> dict[str, list[str]]:
    root = Path(lab.environment["PYSTACK_ROOT"])
    mounts = Path(f"/proc/{lab.pid('n1')}/mounts").read_text().splitlines()
    links = subprocess.run(
        ["nsenter", "-t", lab.pid("n1"), "-n", "ip", "-o", "link", "show", "type", "veth"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    groups = lab.on("n1", "sh", "-c", "ls -d /sys/fs/cgroup/pids/pystack*/* /sys/fs/cgroup/pystack*/* 2>/dev/null; true")
    processes = lab.on("n1", "sh", "-c", "pgrep -x 'conmon|crun|runc' ; true")
    return {
        "containers": [p.name for p in (root / "containers").iterdir()],
        "bundles": [p.name for p in (root / "run" / "containers").iterdir()],
        "namespaces": [p.name for p in (root / "run" / "netns").iterdir()],
        "states": [p.name for p in (root / "run" / "runc").iterdir()],
        "mounts": [m for m in mounts if "/rootfs" in m or "/netns/" in m],
        "links": [line for line in links if not line.split(": ")[1].startswith("eth0")],
        "groups": [g for g in groups.split() if not g.endswith(("/init",)) and len(Path(g).name) == 64],
        "processes": processes.split(),
    }


@pytest.mark.parametrize("point", [n for n in POINTS if n not in IMAGE and not n.startswith(ELSEWHERE)])
def test_stack_survives_a_kill_at(stack: Stack, lab: Pystack, point: str) -> None:
    stack.write(STACK)
    arm(lab, point)
    for verb in (("up",), ("down", "-v")):
        stack.run(*verb, check=False)
    assert fired(lab), f"{point} was never passed"
    retry(lab, "-f", str(stack.file), "up", "-p", stack.name)
    states = {name: row["state"] for name, row in stack.ps().items()}
    assert states == {"a-1": "running", "b-1": "running"}
    assert lab.on("outside", "busybox", "wget", "-qO-", "http://10.99.0.1:8085/") == "it works\n"
    assert stack.exec("b", "wget", "-qO-", "http://a/") == "it works\n"
    assert stack.exec("a", "cat", "/srv/hello") == "hello from the image\n"
    stack.down()
    until(lambda: not any(leftovers(lab).values()), f"nothing left: {leftovers(lab)}", 5)


def test_a_stack_survives_a_kill_at_each_write_of_the_store(stack: Stack, lab: Pystack) -> None:
    """Before or after the N-th write of an `up` of something new, of a change and of a `down`, for every N: nothing is there
    by halves."""
    stack.write(STACK)
    changed = stack.directory / "changed.yml"
    changed.write_text(STACK.replace("sleep 1000", "sleep 2000"))
    verbs = (("-f", str(stack.file), "up"), ("-f", str(changed), "up", "--scale", "b=2"), ("down", "-v"))
    number = 0
    while True:
        number += 1
        assert number < 40
        arm(lab, f"{'store.commit' if number % 2 else 'store.committed'}:{number}")
        for words in verbs:
            lab(*words, "-p", stack.name, check=False)
        if not fired(lab):
            arm(lab, "")  # it would still, later
            break
        retry(lab, *verbs[0], "-p", stack.name)
        assert {name: row["state"] for name, row in stack.ps().items()} == {"a-1": "running", "b-1": "running"}
        assert stack.exec("b", "wget", "-qO-", "http://a/") == "it works\n"
        retry(lab, "down", "-p", stack.name, "-v")
        until(lambda: not any(leftovers(lab).values()), f"nothing left: {leftovers(lab)}", 5)
        assert stack.name not in lab("network", "ls").stdout + lab("volume", "ls").stdout + lab("ls").stdout
    assert number > 5  # there are that many writes


@pytest.mark.parametrize("point", IMAGE)
def test_images_survive_a_kill_at(lab: Pystack, registry: str, tmp_path: Path, point: str) -> None:
    name = f"{registry}/crash/{point}:1"
    path = archive(tmp_path / "i.tar", [tar_of({"a": point.encode() * 1000}), tar_of({"b": b"2"})], name=name)
    retry(lab, "image", "load", "-i", str(path))
    retry(lab, "image", "push", name)
    lab("image", "rm", name)
    arm(lab, point)
    lab("image", "pull", name, check=False)
    lab("image", "rm", name, check=False)
    assert fired(lab), f"{point} was never passed"
    retry(lab, "image", "pull", name)
    lab("container", "run", "--rm", "busybox", "true")
    root = Path(lab.environment["PYSTACK_ROOT"])
    assert not [p for d in ("images", "layers") for p in (root / d).rglob("*.tmp*")]
    lab("image", "rm", name)


ASK = """
import socket, struct, sys, time
name = b"".join(bytes([len(p)]) + p for p in (b"a",)) + b"\\0"
question = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1)
sock.connect(("127.0.0.11", 53))
print("on", flush=True)
asked, lost, slowest = 0, 0, 0.0
end = sys.stdin.fileno()
import select
while not select.select([end], [], [], 0.002)[0]:
    begin = time.monotonic()
    sock.send(question)
    asked += 1
    try:
        answer = sock.recv(512)
        lost += answer[7] != 1
    except TimeoutError:
        lost += 1
    slowest = max(slowest, time.monotonic() - begin)
print(asked, lost, round(slowest * 1000, 1))
"""


def test_containers_names_and_logs_do_not_notice_that_the_server_is_killed_again_and_again(stack: Stack, lab: Pystack) -> None:
    """Every question is asked while some server is dead, starting, or recovering. PYSTACK_RESTARTS says how often."""
    stack.up(
        "services:\n"
        "  a:\n    image: busybox\n    stop_grace_period: 0s\n"
        "    command: sh -c 'n=0; while :; do echo $$n; n=$$((n+1)); usleep 2000; done'\n"
        "  b:\n    image: busybox\n    stop_grace_period: 0s\n    command: sleep 10000\n"
    )
    before = {name: (row["id"], row["started"], row["restarts"]) for name, row in stack.ps().items()}
    root = Path(lab.environment["PYSTACK_ROOT"])
    namespace = f"{root}/run/netns/{str(before['b-1'][0])[:16]}"
    inside = ["nsenter", "-t", lab.pid("n1"), "-m", "-n", "--", "nsenter", f"--net={namespace}"]
    with subprocess.Popen(
        [*inside, "python3", "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as resolver:
        assert resolver.stdout
        assert resolver.stdin
        assert resolver.stdout.readline() == "on\n"
        for _ in range(int(os.environ.get("PYSTACK_RESTARTS", "10"))):
            pid = (root / "run/server.pid").read_text()
            lab("lab", "fault", "--name", lab.lab, "kill", "n1", "agent")
            until(lambda pid=pid: (root / "run/server.pid").read_text() != pid, "a new server")
            until(lambda: lab("ls", check=False).returncode == 0, "an answer")
        resolver.stdin.write("end\n")
        resolver.stdin.flush()
        asked, lost, slowest = resolver.stdout.readline().split()
    print(f"{asked} questions, the slowest answer after {slowest} ms")
    assert int(lost) == 0
    assert int(asked) > 100
    assert {name: (row["id"], row["started"], row["restarts"]) for name, row in stack.ps().items()} == before
    lines = stack.run("logs", "--no-log-prefix", "a").stdout.split()
    assert [int(line) for line in lines] == list(range(len(lines)))
    assert len(lines) > 100
