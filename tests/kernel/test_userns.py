"""User namespaces of containers: root inside is nobody outside, and everything else goes on as it did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.kernel
FIRST = 0x2000_0000
LOOK = ("cat", "/proc/self/uid_map")


@pytest.fixture(scope="module", params=["crun", "runc"])
def lab(request: pytest.FixtureRequest) -> Iterator[Pystack]:
    with cluster_of(1) as pystack:
        root = pystack.environment["PYSTACK_ROOT"]
        Path(f"{root}/config.yml").write_text(f"runtime: {request.param}\n")
        pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")

        def back() -> None:
            assert pystack("node", "ls", check=False).returncode == 0

        eventually(back, 20)
        yield pystack


def process(stack: Stack, service: str) -> tuple[int, int]:
    """PID of a container's first process, and its user ID, both as the host has them."""
    root = Path(stack.pystack.environment["PYSTACK_ROOT"])
    records = [json.loads(p.read_bytes()) for p in (root / "containers").glob("*/record.json")]
    (found,) = (r for r in records if r["stack"] == stack.name and r["service"] == service)
    pid = int(found["process"]["pid"])
    return pid, int(stack.pystack.on("n1", "stat", "-c", "%u", f"/proc/{pid}"))


FILE = """
services:
  own:
    image: busybox
    userns_mode: auto
    command: sh -c "mkdir -p /w; id -u > /w/index.html; exec httpd -f -p 80 -h /w"
    volumes: [data:/data, "./bound:/bound"]
    configs: [greeting]
    secrets: [word]
    ports: ["18080:80"]
    sysctls: {net.ipv4.ip_default_ttl: "77"}
    healthcheck: {test: wget -qO- 127.0.0.1, interval: 0.2s}
    stop_signal: SIGKILL
  other:
    image: busybox
    userns_mode: private
    user: app
    command: sleep 1000
    volumes: [data:/data]
    stop_signal: SIGKILL
  plain:
    image: busybox
    command: sleep 1000
    volumes: [data:/data]
    stop_signal: SIGKILL
  beside:
    image: busybox
    command: sleep 1000
    network_mode: service:own
    pid: service:own
    stop_signal: SIGKILL
volumes: {data: {}}
configs: {greeting: {content: "hello\\n"}}
secrets: {word: {file: ./word}}
"""


def test_root_inside_is_nobody_outside(stack: Stack) -> None:
    (stack.directory / "bound").mkdir()
    (stack.directory / "bound/of-root").write_text("x")
    (stack.directory / "bound/of-root").chmod(0o600)
    (stack.directory / "word").write_text("sesame")
    stack.up(FILE, "--wait")
    ids = {s: process(stack, s)[1] for s in ("own", "other", "plain", "beside")}
    assert ids["plain"] == 0
    assert ids["own"] >= FIRST
    assert ids["own"] % 65536 == 0
    assert ids["other"] % 65536 == 1000
    assert ids["other"] // 65536 != ids["own"] // 65536  # no two have an ID in common
    assert ids["beside"] == ids["own"]  # who shares its network is in its user namespace
    assert stack.exec("own", "id", "-u").strip() == "0"
    # its files are its own, and what belongs to nobody it knows is nobody's
    assert stack.exec("own", "sh", "-c", "touch /x; stat -c %u /x /etc/passwd /etc/hosts").split() == ["0", "0", "0"]
    assert stack.exec("own", "stat", "-c", "%u", "/bound/of-root").strip() == "65534"
    assert stack.run("exec", "-T", "own", "cat", "/bound/of-root", check=False).returncode == 1
    assert stack.exec("own", "cat", "/greeting", "/run/secrets/word") == "hello\nsesame"
    # it is root of its network namespace, and of nothing else
    assert stack.exec("own", "cat", "/proc/sys/net/ipv4/ip_default_ttl").strip() == "77"
    assert stack.exec("beside", "wget", "-qO-", "http://127.0.0.1/").strip() == "0"
    assert "httpd" in stack.exec("beside", "ps")
    assert stack.run("exec", "-T", "own", "mknod", "/tmp/sda", "b", "8", "0", check=False).returncode == 1
    assert stack.pystack.on("outside", "busybox", "wget", "-qO-", "http://10.99.0.1:18080/").strip() == "0"
    assert stack.exec("plain", "wget", "-qO-", "http://own/").strip() == "0"


def test_volumes_pass_from_one_to_the_other(stack: Stack) -> None:
    (stack.directory / "bound").mkdir()
    (stack.directory / "word").write_text("sesame")
    stack.up(FILE, "--wait")
    stack.exec("own", "sh", "-c", "echo from-own > /data/a; chown 1000 /data/a; chmod 600 /data/a")
    assert stack.exec("other", "cat", "/data/a").strip() == "from-own"  # the user app, 1000 in both
    assert stack.exec("plain", "stat", "-c", "%u", "/data/a").strip() == "1000"
    stack.exec("plain", "sh", "-c", "echo of-root > /data/b; chmod 600 /data/b")
    assert stack.run("exec", "-T", "other", "cat", "/data/b", check=False).returncode == 1
    assert stack.exec("own", "cat", "/data/b").strip() == "of-root"


def test_what_it_wrote_is_kept_copied_and_committed(stack: Stack, tmp_path: Path) -> None:
    (stack.directory / "bound").mkdir()
    (stack.directory / "word").write_text("sesame")
    stack.up(FILE, "--wait")
    stack.exec("own", "sh", "-c", "echo kept > /srv/kept; chown 1000:1000 /srv/kept; rm /srv/hello")
    (tmp_path / "in").write_text("copied in")
    for running in (True, False):
        if not running:
            stack.run("stop", "own")
        stack.run("cp", str(tmp_path / "in"), f"own:/srv/in-{running}")
        stack.run("cp", "own:/srv/kept", str(tmp_path / "out"))
        assert (tmp_path / "out").read_text() == "kept\n"
        assert (tmp_path / "out").stat().st_uid in (0, 1000)
        tar = tmp_path / "all.tar"
        stack.run("export", "-o", str(tar), "own")
        import tarfile

        with tarfile.open(tar) as archive:
            owners = {m.name: m.uid for m in archive.getmembers()}
        assert owners["srv/kept"] == 1000
        assert owners["etc/passwd"] == 0
        assert "srv/hello" not in owners
    stack.run("start", "own")
    assert stack.exec("own", "stat", "-c", "%u %n", "/srv/kept", "/srv/in-True", "/srv/in-False").splitlines() == [
        "1000 /srv/kept",
        "0 /srv/in-True",
        "0 /srv/in-False",
    ]
    stack.run("commit", "own", f"{stack.name}:latest")
    look = ("stat", "-c", "%u", "/srv/kept", "/srv/in-True")
    assert stack.pystack("container", "run", "--rm", f"{stack.name}:latest", *look).stdout.split() == ["1000", "0"]
    stack.pystack("image", "rm", f"{stack.name}:latest")


def test_the_next_agent_finds_it_again(stack: Stack) -> None:
    (stack.directory / "bound").mkdir()
    (stack.directory / "word").write_text("sesame")
    stack.up(FILE, "--wait")
    before = {name: row["id"] for name, row in stack.ps().items()}
    running = {s: process(stack, s) for s in ("own", "other")}
    stack.pystack("lab", "fault", "--name", stack.pystack.lab, "kill", "n1", "server")

    def back() -> None:
        done = stack.run("exec", "-T", "own", "id", "-u", check=False)
        assert done.stdout.strip() == "0"

    eventually(back, 20)
    assert {s: process(stack, s) for s in ("own", "other")} == running
    third = stack.pystack("container", "run", "--rm", "--userns", "auto", "busybox", *LOOK).stdout.split()
    assert int(third[1]) not in {uid // 65536 * 65536 for _, uid in running.values()}
    stack.run("restart", "own")
    assert stack.exec("own", "id", "-u").strip() == "0"
    assert {name: row["id"] for name, row in stack.ps().items()} == before
    stack.down()
    root = Path(stack.pystack.environment["PYSTACK_ROOT"])
    assert list((root / "run/userns").iterdir()) == []
    assert stack.pystack.lab not in "".join(
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/mapped/" in line
    )


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("privileged: true", "privileged: a container in a user namespace has nothing of the host: userns_mode: host"),
        (
            "network_mode: host",
            "network_mode: host: a container in a user namespace has nothing of the host: userns_mode: host",
        ),
        ("pid: host", "pid: host: a container in a user namespace has nothing of the host: userns_mode: host"),
    ],
)
def test_what_is_the_hosts_is_refused(stack: Stack, key: str, said: str) -> None:
    done = stack.up("services: {a: {image: busybox, command: sleep 9, userns_mode: auto, " + key + "}}", check=False)
    assert done.returncode == 1
    assert said in done.stderr


def test_the_nodes_settings_say_it_for_all(stack: Stack) -> None:
    root = Path(stack.pystack.environment["PYSTACK_ROOT"])
    text = (root / "config.yml").read_text()
    try:
        (root / "config.yml").write_text(f"{text}userns: auto\n")
        stack.pystack("lab", "fault", "--name", stack.pystack.lab, "kill", "n1", "server")

        def mapped() -> None:
            words = stack.pystack("container", "run", "--rm", "busybox", *LOOK, check=False).stdout.split()
            assert words
            assert int(words[1]) >= FIRST

        eventually(mapped, 20)
        own = stack.pystack("container", "run", "--rm", "--userns", "host", "busybox", *LOOK).stdout.split()
        assert own[1] == "0"
    finally:
        (root / "config.yml").write_text(text)
        stack.pystack("lab", "fault", "--name", stack.pystack.lab, "kill", "n1", "server")

        def answers() -> None:
            assert stack.pystack("ls", check=False).returncode == 0

        eventually(answers, 20)


def test_what_an_audit_puts_right_leaves_them_working(stack: Stack) -> None:
    text = "services: {a: {image: busybox, command: sleep 1000, stop_grace_period: 0s, userns_mode: auto}}"
    stack.up(text)
    findings = json.loads(stack.pystack("audit", "n1", "--fix", "--format", "json", check=False).stdout)["findings"]
    assert [f["target"] for f in findings if f["rule"] == "3"] == []
    stack.run("up", "--force-recreate")
    assert stack.exec("a", "cat", "/proc/self/uid_map").split()[1] != "0"
