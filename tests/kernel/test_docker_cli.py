"""Docker's own command, version 28, against a node's socket: whole command lines, and what they say as Docker documents it.

Source: Docker CLI reference; Docker Engine API v1.48.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, Pystack, eventually

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("docker") is None, reason="there is no `docker` client on PATH"),
]


class Docker:
    """The command, as a user runs it with DOCKER_HOST set."""

    def __init__(self, lab: Pystack, folder: Path) -> None:
        self.socket = f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")} | {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(folder),
            "DOCKER_BUILDKIT": "0",
        }

    def __call__(
        self, *words: str, code: int = 0, stdin: str | bytes = "", timeout: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            ["docker", *words],
            capture_output=True,
            input=given,
            env=self.environment | environment,
            timeout=timeout * PATIENCE,
            check=False,
        )
        told = subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert told.returncode == code, f"docker {' '.join(words)}: {told.returncode}\n{told.stdout}{told.stderr}"
        return told

    def out(self, *words: str, **how: Any) -> str:
        return self(*words, **how).stdout.strip()

    def refused(self, *words: str, code: int = 125, **how: Any) -> str:
        """What the command says where it fails."""
        return self(*words, code=code, **how).stderr

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out("inspect", name))[0]
        return found


class Terminal:
    """The command on a terminal of its own, as a person has it."""

    def __init__(self, docker: Docker, *words: str, rows: int = 24, columns: int = 80) -> None:
        self.fd, slave = pty.openpty()
        # setsid(1) in place of a fork of this process, which may have threads of gRPC's
        command = ["setsid", "--ctty", "docker", *words]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=docker.environment)
        os.close(slave)
        self.resize(rows, columns)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def shows(self, pattern: str, within_s: float = 20) -> str:
        """Wait for *pattern*; what came up to its end is not looked at again."""
        deadline = time.monotonic() + within_s * PATIENCE
        while not (match := re.search(pattern.encode(), self.seen)):
            assert time.monotonic() < deadline, f"{pattern!r} does not come; there is {self.seen!r}"
            if not select.select([self.fd], [], [], 0.1)[0]:
                continue
            try:
                self.seen += os.read(self.fd, 1 << 16)
            except OSError:
                assert re.search(pattern.encode(), self.seen), f"it ended without {pattern!r}; there is {self.seen!r}"
        self.seen = self.seen[match.end() :]
        return match[0].decode()

    def ends(self) -> int:
        """Its exit status, once it has ended."""
        while True:
            try:
                if not os.read(self.fd, 1 << 16):
                    break
            except OSError:
                break
        os.close(self.fd)
        return self.process.wait()


@pytest.fixture(scope="module")
def docker(lab: Pystack, tmp_path_factory: pytest.TempPathFactory) -> Docker:
    return Docker(lab, tmp_path_factory.mktemp("docker"))


@pytest.fixture
def name(docker: Docker) -> Iterator[str]:
    """A name for a container, which goes at the end."""
    made = f"c{uuid.uuid4().hex[:8]}"
    yield made
    docker("rm", "-fv", made)


@pytest.fixture
def sleeper(docker: Docker, name: str) -> str:
    docker("run", "-d", "--name", name, "--stop-signal", "KILL", "busybox", "sleep", "1000")
    return name


# --- run -------------------------------------------------------------------------------------------------------------


def test_run_is_the_whole_life_of_a_container(docker: Docker) -> None:
    before = docker.out("ps", "-aq")
    assert docker.out("run", "--rm", "busybox", "echo", "hi") == "hi"
    both = docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (both.stdout, both.stderr) == ("out\n", "err\n")
    assert docker.out("run", "--rm", "-i", "busybox", "cat", stdin="through\n") == "through"
    assert docker.out("run", "--rm", "--entrypoint", "", "busybox", "echo", "own") == "own"
    assert docker.out("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net") == "lo"
    assert docker.out("ps", "-aq") == before


NO_START: dict[str, tuple[list[str], int, str]] = {
    "no such program": (["busybox", "nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
    "a folder": (["busybox", "/etc"], 126, "permission denied"),
    "no such user": (["-u", "nosuch", "busybox", "id"], 125, "nosuch"),
    "no such network": (["--network", "nosuch", "busybox", "true"], 125, "network nosuch not found"),
    "no such container to join": (["--network", "container:nosuch", "busybox", "true"], 125, "No such container: nosuch"),
    "no such capability": (["--cap-add", "NOSUCH", "busybox", "true"], 125, "NOSUCH"),
}


@pytest.mark.parametrize(("words", "code", "said"), NO_START.values(), ids=NO_START)
def test_a_start_that_fails_leaves_nothing_of_rm(docker: Docker, words: list[str], code: int, said: str) -> None:
    before = docker.out("ps", "-aq")
    told = docker.refused("run", "--rm", *words, code=code)
    assert said in told
    assert "Error waiting" not in told
    assert docker.out("ps", "-aq") == before


def test_a_start_that_fails_is_told_by_the_container(docker: Docker, name: str) -> None:
    docker.refused("run", "--name", name, "busybox", "nosuch", code=127)
    state = docker.inspect(name)["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "not found" in state["Error"]
    assert docker.out("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}") == "Created"


REFUSED: dict[str, tuple[list[str], str]] = {
    "restart policy": (["--restart", "bogus"], "invalid restart policy 'bogus'"),
    "restart policy of one that removes itself": (["--rm", "--restart", "on-failure:x"], "restart"),
    "security option": (["--security-opt", "bogus=1"], "bogus=1"),
    "IPC mode": (["--ipc", "bogus"], "bogus"),
    "stop signal": (["--stop-signal", "BOGUS"], "BOGUS"),
    "runtime": (["--runtime", "nosuch"], "nosuch"),
    "platform": (["--platform", "linux/s390x"], "linux/s390x"),
    "volume mode": (["-v", "vol:/b:bogus"], "bogus"),
    "log option": (["--log-opt", "bogus=1"], "unknown log opt 'bogus' for json-file log driver"),
    "log driver": (["--log-driver", "nosuch"], "nosuch"),
    "storage option": (["--storage-opt", "size=1G"], "--storage-opt"),
    "one place twice": (["-v", "vol:/b", "--mount", "type=tmpfs,target=/b"], "Duplicate mount point: /b"),
    "ports in another's network": (["--network", "container:x", "-p", "80:80"], "conflicting options"),
    "more CPUs than there are": (["--cpus", "10000"], "Range of CPUs"),
    "too little memory": (["-m", "1m"], "Minimum memory limit allowed is 6MB"),
    "swap below memory": (["-m", "64m", "--memory-swap", "32m"], "memoryswap"),
    "name of one letter": (["--name", "x"], "Invalid container name (x)"),
    "relative folder": (["-w", "here"], "absolute path"),
    "MAC address": (["--mac-address", "nonsense"], "nonsense"),
    "bind mount of what is not there": (["--mount", "type=bind,source=/no/such,target=/b"], "does not exist"),
    "mode of volumes from": (["--volumes-from", "nosuch:bogus"], "invalid mode: bogus"),
    "memory nodes": (["--cpuset-mems", "99"], "Requested memory nodes are not available"),
    "period beside CPUs": (["--cpus", "0.5", "--cpu-period", "50000"], "Nano CPUs and CPU Period cannot both be set"),
    "blkio weight": (["--blkio-weight", "5"], "10 to 1000"),
    "IP address": (["--network", "bridge", "--ip", "1.2.3.400"], "1.2.3.400"),
    "IP address on the default bridge": (["--network", "bridge", "--ip", "1.2.3.4"], "user defined networks only"),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_what_dockerd_refuses_is_refused(docker: Docker, words: list[str], said: str) -> None:
    before = docker.out("ps", "-aq")
    assert said in docker.refused("run", *words, "busybox", "true")
    assert docker.out("ps", "-aq") == before


def test_what_is_refused_of_a_container_that_runs(docker: Docker, sleeper: str) -> None:
    assert "executable file not found" in docker.refused("exec", "-d", sleeper, "nosuch", code=1)
    assert "Cwd must be an absolute path" in docker("exec", "-w", "relative", sleeper, "pwd", code=126).stdout
    assert "cannot remove the default link name" in docker.refused("rm", "-f", "--link", sleeper, code=1)
    assert docker.out("inspect", "-f", "{{.State.Status}}", sleeper) == "running"
    docker("update", "--cpu-period", "50000", "--cpu-quota", "20000", sleeper)
    assert "as CPU Period has already been set" in docker.refused("update", "--cpus", "0.5", sleeper, code=1)
    assert "does not support signal 99" in docker.refused("kill", "-s", "99", sleeper, code=1)
    assert "is not connected to network host" in docker.refused("network", "disconnect", "host", sleeper, code=1)
    assert "network-scoped alias" in docker.refused("network", "connect", "--alias", "x", "bridge", sleeper, code=1)
    assert "Invalid filter 'bogus'" in docker.refused("builder", "prune", "-f", "--filter", "bogus=1", code=1)
    assert "Invalid filter 'bogus'" in docker.refused("plugin", "ls", "--filter", "bogus=1", code=1)
    switch = "com.docker.network.bridge.enable_icc=bogus"
    assert "failed to parse" in docker.refused("network", "create", "-o", switch, f"{sleeper}-n", code=1)


def test_all_that_ends_a_container_at_once_leaves_nothing(docker: Docker, name: str) -> None:
    socket_path = docker.environment["DOCKER_HOST"].removeprefix("unix://")

    def ask(words: str) -> int:
        method, _, rest = words.partition(" ")
        connection = http.client.HTTPConnection("docker")
        with contextlib.closing(connection), socket.socket(socket.AF_UNIX) as connection.sock:
            connection.sock.settimeout(20 * PATIENCE)
            connection.sock.connect(socket_path)
            connection.request(method, f"/containers/{name}{rest}")
            return connection.getresponse().status

    verbs = (
        "DELETE ?force=1",
        "DELETE ?force=1",
        "POST /stop?t=0",
        "POST /kill",
        "POST /pause",
        "POST /restart?t=0",
        "GET /top",
    )
    for turn in range(7):
        docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
        with ThreadPoolExecutor(len(verbs)) as threads:
            assert min(threads.map(ask, verbs[turn:] + verbs[:turn])) >= 200
        docker("rm", "-f", name)
        assert name not in docker.out("ps", "-a", "--format", "{{.Names}}").split()


def test_a_domain_is_known_inside(docker: Docker) -> None:
    words = ("run", "--rm", "-h", "own", "--domainname", "example.org", "busybox")
    assert docker.out(*words, "cat", "/proc/sys/kernel/domainname") == "example.org"
    assert docker.out("run", "--rm", "-h", "own.example.org", "busybox", "grep", "own", "/etc/hosts").endswith(
        "own.example.org own"
    )


def test_an_error_is_one_sentence(docker: Docker) -> None:
    """The command shows the message alone only where the answer's type is application/json to the letter."""
    assert (
        docker.refused("inspect", "--type", "container", "nosuch", code=1)
        .splitlines()[-1]
        .endswith("No such container: nosuch")
    )


# --- exec, attach, terminals -----------------------------------------------------------------------------------------


def test_exec(docker: Docker, sleeper: str) -> None:
    assert docker.out("exec", "-t", sleeper, "sh", "-c", "test -t 1 && echo tty") == "tty"
    assert docker.out("exec", "-i", sleeper, "cat", stdin="through\n") == "through"
    both = docker("exec", sleeper, "sh", "-c", "echo out; echo err >&2; exit 9", code=9)
    assert (both.stdout, both.stderr) == ("out\n", "err\n")
    assert (
        docker.out("exec", "-e", "A=1", "-w", "/srv", "-u", "app", sleeper, "sh", "-c", "echo $A $(pwd) $(id -u)")
        == "1 /srv 1000"
    )
    docker("exec", "-d", sleeper, "touch", "/tmp/there")
    eventually(lambda: docker("exec", sleeper, "ls", "/tmp/there") and None)
    docker("exec", sleeper, "nosuch", code=127)
    docker("exec", sleeper, "/etc", code=126)
    assert "nobody-here" in docker("exec", "-u", "nobody-here", sleeper, "id", code=126).stdout
    docker("pause", sleeper)
    assert "paused" in docker.refused("exec", sleeper, "true", code=1)
    docker("unpause", sleeper)
    assert docker.inspect(sleeper)["ExecIDs"] is None


@pytest.mark.parametrize("how", [("run", "-it", "--rm", "busybox", "sh"), ("exec", "-it", "NAME", "sh")], ids=["run", "exec"])
def test_a_terminal_has_the_size_of_the_one_in_front(docker: Docker, sleeper: str, how: tuple[str, ...]) -> None:
    terminal = Terminal(docker, *(sleeper if w == "NAME" else w for w in how), rows=33, columns=101)

    def has(rows: int, columns: int) -> None:
        terminal.resize(rows, columns)  # each time: the client does not listen for the signal from its first moment on
        terminal.type("echo; stty size; echo asked\n")
        assert f"{rows} {columns}" in terminal.shows(r"\r\n[^\n]*\r\nasked")

    eventually(lambda: has(33, 101))
    eventually(lambda: has(50, 99))
    terminal.type("exit 5\n")
    assert terminal.ends() == 5


def test_a_terminal_can_be_left_and_come_back_to(docker: Docker, name: str) -> None:
    terminal = Terminal(docker, "run", "-it", "--name", name, "busybox", "sh")
    terminal.type("echo $((20 + 3))\n")
    terminal.shows("23")
    terminal.type("\x10\x11")
    assert terminal.ends() == 0
    assert docker.inspect(name)["State"]["Running"]
    again = Terminal(docker, "attach", name)
    again.type("echo $((30 + 4))\n")
    again.shows("34")
    again.type("exit 3\n")
    assert again.ends() == 3


def test_start_attached(docker: Docker, name: str) -> None:
    docker("create", "--name", name, "busybox", "sh", "-c", "echo said; exit 4")
    for _ in range(2):
        assert docker.out("start", "-a", name, code=4) == "said"


def test_detach_keys_are_heard_by_the_server(docker: Docker, name: str) -> None:
    """A client that knows nothing of them, as most libraries, hands them on."""
    docker("run", "-dit", "--name", name, "busybox", "sh")
    status, said = ask(docker, "POST", f"/v1.48/containers/{name}/attach?detachKeys=bad-keys")
    assert (status, "bad-keys" in said["message"]) == (400, True)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20 * PATIENCE)
        raw.connect(docker.socket)
        query = "stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,q"
        raw.sendall(
            f"POST /v1.48/containers/{name}/attach?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            "Upgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = raw.recv(4096)
        assert b"101 UPGRADED" in head
        assert b"application/vnd.docker.raw-stream" in head
        raw.sendall(b"\x01q")
        while raw.recv(4096):
            pass
    assert docker.inspect(name)["State"]["Running"]


def test_what_is_typed_ahead_is_heard_by_the_command(docker: Docker, name: str) -> None:
    """The terminal echoes it before there is a command, as it does for a client that writes at once."""
    docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    for _ in range(10):
        made = {"Cmd": ["cat"], "Tty": True, "AttachStdin": True, "AttachStdout": True}
        _, created = ask(docker, "POST", f"/v1.48/containers/{name}/exec", made)
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(20 * PATIENCE)
            raw.connect(docker.socket)
            started = json.dumps({"Detach": False, "Tty": True})
            raw.sendall(
                f"POST /v1.48/exec/{created['Id']}/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(started)}\r\n\r\n{started}".encode()
            )
            said = b""
            while b"\r\n\r\n" not in said:
                said += raw.recv(4096)
            raw.sendall(b"typed\n")
            while not said.endswith(b"typed\r\ntyped\r\n"):
                data = raw.recv(4096)
                assert data, said
                said += data


# --- logs, events, wait, lists ---------------------------------------------------------------------------------------


def test_logs(docker: Docker, name: str) -> None:
    docker(
        "run",
        "-d",
        "--name",
        name,
        "--label",
        "tier=web",
        "--log-opt",
        "labels=tier",
        "--log-opt",
        "max-size=1m",
        "busybox",
        "sh",
        "-c",
        "echo one; echo two >&2; read x < /dev/zero || sleep 1000",
    )
    eventually(lambda: _equal(docker.out("logs", name), "one"))
    assert docker("logs", name).stderr == "two\n"
    assert docker.out("logs", "--tail", "0", name) == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z one", docker.out("logs", "-t", name))
    assert docker.out("logs", "--details", name) == "tier=web one"
    assert docker.out("logs", "--since", "1h", name) == "one"
    assert docker.out("logs", "--until", "1h", name) == ""
    follower = subprocess.Popen(["docker", "logs", "-f", name], env=docker.environment, stdout=subprocess.PIPE, text=True)
    docker("kill", name)
    assert follower.communicate(timeout=30 * PATIENCE)[0] == "one\n"


def _equal(found: object, wanted: object) -> None:
    assert found == wanted


def test_events_tell_the_whole_story(docker: Docker, name: str) -> None:
    begin = str(time.time())
    docker("volume", "create", f"{name}-v")
    docker("network", "create", f"{name}-n")
    docker("run", "-d", "--name", name, "--label", f"of={name}", "--network", f"{name}-n", "busybox", "sleep", "1000")
    docker("exec", name, "sh", "-c", "exit 3", code=3)
    docker("kill", name)
    docker("wait", name)
    docker("rm", name)
    docker("network", "rm", f"{name}-n")
    docker("volume", "rm", f"{name}-v")
    docker("tag", "busybox", f"{name}:1")
    docker("rmi", f"{name}:1")
    ask = ("events", "--since", begin, "--until", str(time.time() + 0.1), "--format", "json")
    told = [json.loads(line) for line in docker.out(*ask).splitlines()]
    attributes = [(e["Type"], e["Action"].partition(":")[0], e["Actor"]["Attributes"]) for e in told]
    assert [(kind, action) for kind, action, a in attributes if name in json.dumps(a) or kind in ("volume", "image")] == [
        ("volume", "create"),
        ("network", "create"),
        ("container", "create"),
        ("network", "connect"),
        ("container", "start"),
        ("container", "exec_create"),
        ("container", "exec_start"),
        ("container", "exec_die"),
        ("container", "kill"),
        ("container", "die"),
        ("network", "disconnect"),
        ("container", "destroy"),
        ("network", "destroy"),
        ("volume", "destroy"),
        ("image", "tag"),
        ("image", "untag"),
    ]
    assert all(a["image"] == "busybox" and a["of"] == name for kind, _, a in attributes if kind == "container")
    assert {a["exitCode"] for _, action, a in attributes if action in ("exec_die", "die")} == {"3", "137"}
    for narrow, count in (
        ("type=volume", 2),
        ("event=die", 1),
        (f"label=of={name}", 8),
        (f"container={name}", 8),
        ("image=busybox", 8),
        (f"volume={name}-v", 2),
    ):
        assert len(docker.out(*ask, "--filter", narrow).splitlines()) >= count, narrow


def test_events_outlive_the_agent(docker: Docker, lab: Pystack) -> None:
    word, begin = f"v{uuid.uuid4().hex[:8]}", str(time.time())
    docker("volume", "create", word)
    lab("lab", "fault", "--name", lab.lab, "kill", "n1", "agent")
    eventually(lambda: docker("version") and None, 30)
    docker("volume", "rm", word)
    told = docker.out(
        "events", "--since", begin, "--until", str(time.time() + 0.1), "--filter", f"volume={word}", "--format", "{{.Action}}"
    )
    assert told.split() == ["create", "destroy"]


def test_wait_knows_its_conditions(docker: Docker, name: str) -> None:
    docker("run", "-d", "--rm", "--name", name, "busybox", "sleep", "1000")
    waiting = subprocess.Popen(["docker", "wait", name], env=docker.environment, stdout=subprocess.PIPE, text=True)
    docker("stop", "-t", "0", name)
    assert waiting.communicate(timeout=30 * PATIENCE)[0] == "137\n"
    eventually(lambda: _equal(docker.out("ps", "-aq", "--filter", f"name={name}"), ""))
    status, said = ask(docker, "POST", "/v1.48/containers/nosuch/wait?condition=bogus")
    assert status == 404
    docker("create", "--name", name, "busybox", "true")
    status, said = ask(docker, "POST", f"/v1.48/containers/{name}/wait?condition=bogus")
    assert (status, "invalid condition" in said["message"]) == (400, True)


def test_ps_narrows(docker: Docker, name: str) -> None:
    docker(
        "run",
        "-d",
        "--name",
        name,
        "--label",
        "a=b",
        "-p",
        "127.0.0.1::80",
        "--expose",
        "99",
        "-v",
        f"{name}:/v",
        "--health-cmd",
        "true",
        "--health-interval",
        "1s",
        "busybox",
        "sleep",
        "1000",
    )
    port = docker.out("port", name, "80/tcp").rpartition(":")[2]

    def healthy() -> None:
        assert docker.out("ps", "-q", "--filter", "health=healthy", "--filter", f"name={name}")

    eventually(healthy, 20)
    for narrow in (
        "label=a=b",
        f"publish={port}",
        f"publish={int(port) - 1}-{int(port) + 1}",
        "expose=99",
        f"volume={name}",
        "volume=/v",
        "network=bridge",
        "ancestor=busybox",
        "status=running",
    ):
        assert docker.out("ps", "-q", "--filter", narrow, "--filter", f"name={name}"), narrow
    for narrow in (
        "label=a=c",
        "publish=1",
        "expose=98",
        "volume=nosuch",
        "network=nosuch",
        "ancestor=nosuch",
        "status=paused",
        "health=none",
        "name=[",
    ):
        assert docker.out("ps", "-q", "--filter", narrow, "--filter", f"id={name}") == "", narrow
    shown = docker.out("ps", "--format", "{{.Ports}}", "--filter", f"name={name}")
    assert shown == f"99/tcp, 127.0.0.1:{port}->80/tcp"
    for narrow in ("status=bogus", "bogus=1", "health=bogus", "exited=x"):
        docker.refused("ps", "--filter", narrow, code=1)
    docker("volume", "rm", name, code=1)


def test_inspect_says_what_was_asked(docker: Docker, name: str) -> None:
    docker(
        "run",
        "-d",
        "--name",
        name,
        "-v",
        f"{name}:/data:rw",
        "--mount",
        "type=tmpfs,target=/t,tmpfs-mode=1770",
        "-e",
        "B=2",
        "-e",
        "A=1",
        "-m",
        "64m",
        "--ipc",
        "shareable",
        "--restart",
        "on-failure:3",
        "-p",
        "80",
        "busybox",
        "sleep",
        "1000",
    )
    found = docker.inspect(name)
    host = found["HostConfig"]
    assert host["Binds"] == [f"{name}:/data:rw"]
    assert [(m["Type"], m["Target"]) for m in host["Mounts"]] == [("tmpfs", "/t")]
    assert (host["NetworkMode"], host["IpcMode"], host["MemorySwap"]) == ("bridge", "shareable", 128 << 20)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    # the client sends them in any order; test_docker_py holds that theirs is kept
    assert sorted(found["Config"]["Env"][:2]) == ["A=1", "B=2"]
    assert found["NetworkSettings"]["Networks"]["bridge"]["DNSNames"] == [name, found["Id"][:12]]
    assert docker.out("exec", name, "stat", "-c", "%a", "/t") == "1770"
    docker("update", "--restart", "no", "-m", "96m", "--memory-swap", "192m", name)
    host = docker.inspect(name)["HostConfig"]
    assert (host["RestartPolicy"]["Name"], host["Memory"]) == ("no", 96 << 20)
    assert "invalid restart policy 'bogus'" in docker.refused("update", "--restart", "bogus", name, code=1)


def test_programs_know_where_they_are(docker: Docker, name: str) -> None:
    """By a file, and by their own name and their name server, which a volume over /etc does not hide."""
    own = f"{name}-etc"
    said = docker.out(
        "run",
        "--rm",
        "--hostname",
        "me",
        "-v",
        f"{own}:/etc",
        "busybox",
        "sh",
        "-c",
        "ls /.dockerenv; cat /etc/hostname; grep -c nameserver /etc/resolv.conf; grep -c me /etc/hosts",
    )
    assert said.split() == ["/.dockerenv", "me", "1", "1"]
    assert docker.out("run", "--rm", "-v", f"{own}:/etc:ro", "busybox", "cat", "/etc/passwd")
    docker("volume", "rm", own)
    docker("volume", "create", own)
    docker("run", "--name", name, "-v", f"{own}:/etc:nocopy", "busybox", "ls", "/etc/passwd", code=1)
    assert docker.inspect(name)["Mounts"][0]["Mode"] == "nocopy"
    docker("rm", name)
    docker("volume", "rm", own)


def test_stats_and_top(docker: Docker, sleeper: str, name: str) -> None:
    row = json.loads(docker.out("stats", "--no-stream", "--format", "json", sleeper))
    assert (row["Name"], row["PIDs"]) == (sleeper, "1")
    assert not row["MemUsage"].startswith("0B")
    assert "sleep 1000" in docker.out("top", sleeper)
    assert docker.out("top", sleeper, "-o", "pid,comm").splitlines()[0].split() == ["PID", "COMMAND"]
    assert "PID" in docker.refused("top", sleeper, "-o", "comm", code=1)
    docker("kill", sleeper)
    row = json.loads(docker.out("stats", "-a", "--no-stream", "--format", "json", sleeper))
    assert (row["Name"], row["PIDs"]) == (sleeper, "0")
    assert "is not running" in docker.refused("top", sleeper, code=1)


def test_names(docker: Docker, sleeper: str) -> None:
    assert "Invalid container name" in docker.refused("rename", sleeper, "b/c", code=1)
    docker("rename", sleeper, f"{sleeper}-2")
    docker("rename", f"{sleeper}-2", sleeper)
    assert "in use" in docker.refused("run", "--name", sleeper, "busybox", "true")


# --- files and images ------------------------------------------------------------------------------------------------


def test_copies(docker: Docker, sleeper: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("one\n")
    docker("cp", str(tmp_path / "in"), f"{sleeper}:/tmp")
    assert docker.out("exec", sleeper, "cat", "/tmp/in/a") == "one"
    docker("cp", f"{sleeper}:/tmp/in/a", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "one\n"
    assert docker("cp", f"{sleeper}:/tmp/in/a", "-").stdout.startswith("a\0")
    docker("cp", f"{sleeper}:/nosuch", str(tmp_path), code=1)
    assert {"A /tmp/in", "A /tmp/in/a"} <= set(docker.out("diff", sleeper).splitlines())


def test_commit_takes_instructions(docker: Docker, name: str) -> None:
    docker("run", "--name", name, "--label", "own=1", "-v", "/kept", "busybox", "sh", "-c", "echo made > /made")
    image = f"{name}:1"
    lines = (
        "EXPOSE 80 81/udp",
        'LABEL a=b c="d e"',
        'ENV X=1 Y="2 3"',
        "HEALTHCHECK --interval=5s CMD true",
        "VOLUME /v",
        "ONBUILD RUN true",
        'CMD ["cat", "/made"]',
    )
    docker("commit", "-a", "me", "-m", "done", *(word for line in lines for word in ("-c", line)), name, image)
    found = docker.inspect(image)
    config = found["Config"]
    assert config["ExposedPorts"] == {"80/tcp": {}, "81/udp": {}}
    assert config["Labels"] == {"own": "1", "a": "b", "c": "d e"}
    assert {"X=1", "Y=2 3"} <= set(config["Env"])
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9}
    assert (config["Volumes"], config["OnBuild"]) == ({"/kept": {}, "/v": {}}, ["RUN true"])
    assert (found["Author"], found["Comment"]) == ("me", "done")
    assert docker.out("run", "--rm", image) == "made"
    assert "bogus is not a valid change command" in docker.refused("commit", "-c", "BOGUS x", name, code=1)
    docker("rmi", image)


def test_images_have_names(docker: Docker, tmp_path: Path) -> None:
    word = f"i{uuid.uuid4().hex[:8]}"
    (tmp_path / "file").write_text(word)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /file\nLABEL mine=1\n")
    docker("build", "-t", f"{word}:1", str(tmp_path))
    docker("tag", f"{word}:1", f"some/{word}:2")
    listed = ("images", "--format", "{{.Repository}}:{{.Tag}}")
    assert docker.out(*listed, f"some/{word}") == f"some/{word}:2"
    assert set(docker.out(*listed, "--filter", "label=mine=1", "--filter", f"reference=*{word}").splitlines()) == {f"{word}:1"}
    ident = docker.out("images", "-q", "--no-trunc", f"{word}:1")
    archive = tmp_path / "image.tar"
    docker("save", "-o", str(archive), ident)
    assert "must be forced" in docker.refused("rmi", ident, code=1)
    docker("rmi", "-f", ident)
    assert docker.out("load", "-i", str(archive)) == f"Loaded image ID: {ident}"
    assert docker.inspect(ident)["RepoTags"] == []
    docker("tag", ident, f"{word}:3")
    docker("save", "-o", str(archive), f"{word}:3")
    assert docker.out("load", "-i", str(archive)) == f"Loaded image: {word}:3"
    steps = docker.out("history", "--format", "{{.CreatedBy}}", f"{word}:3").splitlines()
    assert any("COPY" in step for step in steps)
    assert f"Untagged: {word}:3" in docker.out("rmi", f"{word}:3")
    assert "No such image" in docker.refused("inspect", "--type", "image", f"{word}:3", code=1)


def test_an_image_in_use_stays(docker: Docker, name: str) -> None:
    docker("tag", "busybox", f"{name}:1")
    docker("commit", docker.out("run", "-d", "--name", name, f"{name}:1", "sleep", "1000"), f"{name}:own")
    docker("rm", "-f", name)
    docker("run", "-d", "--name", name, f"{name}:own", "sleep", "1000")
    assert "must force" in docker.refused("rmi", f"{name}:own", code=1)
    docker("rmi", "-f", f"{name}:own")  # it goes on, without a name
    docker("restart", "-t", "0", name)
    assert docker.inspect(name)["State"]["Running"]
    docker("rmi", f"{name}:1")
    docker("rm", "-f", name)
    docker("image", "prune", "-f")


def test_build_speaks_as_docker_does(docker: Docker, tmp_path: Path) -> None:
    word = f"b{uuid.uuid4().hex[:8]}"
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nARG A\nRUN echo {word} > /made\n")
    said = docker("build", "-t", f"{word}:1", "--iidfile", str(tmp_path / "iid"), str(tmp_path)).stdout
    assert [line for line in said.splitlines() if line.startswith("Step")] == [
        "Step 1/3 : FROM busybox",
        "Step 2/3 : ARG A",
        f"Step 3/3 : RUN echo {word} > /made",
    ]
    ident = docker.out("images", "-q", "--no-trunc", f"{word}:1")
    assert (tmp_path / "iid").read_text() == ident
    assert said.splitlines()[-2:] == [f"Successfully built {ident[7:19]}", f"Successfully tagged {word}:1"]
    assert docker.out("build", "-q", str(tmp_path)) == ident
    assert docker.out("build", "-q", "--compress", str(tmp_path)) == ident
    packed = subprocess.run(["tar", "-C", str(tmp_path), "-cJ", "Dockerfile"], capture_output=True, check=True).stdout
    assert docker.out("build", "-q", "-", stdin=packed) == ident
    assert docker.out("build", "-q", "-f", "-", str(tmp_path), stdin=(tmp_path / "Dockerfile").read_text()) == ident
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN exit 7\n")
    assert "returned a non-zero code: 7" in docker.refused("build", str(tmp_path), code=7)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nBOGUS x\n")
    assert "imagebuilder" not in docker.refused("build", str(tmp_path), code=1)
    docker("rmi", f"{word}:1")


def test_import(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("hello\n")
    packed = subprocess.run(["tar", "-C", str(tmp_path), "-c", "hello"], capture_output=True, check=True).stdout
    ident = docker.out("import", "-c", "LABEL a=b", "-", stdin=packed)
    assert docker.inspect(ident)["RepoTags"] == []
    assert docker.inspect(ident)["Config"]["Labels"] == {"a": "b"}
    docker("rmi", ident)


# --- networks and volumes --------------------------------------------------------------------------------------------


def test_networks(docker: Docker, sleeper: str) -> None:
    word = f"n{uuid.uuid4().hex[:8]}"
    docker("network", "create", "--label", "keep=1", "--subnet", "10.93.7.0/24", word)
    docker("network", "connect", "--alias", "also", "--ip", "10.93.7.9", word, sleeper)
    assert docker.inspect(sleeper)["NetworkSettings"]["Networks"][word]["IPAddress"] == "10.93.7.9"
    assert docker.out("run", "--rm", "--network", word, "busybox", "ping", "-c", "1", "also")
    assert "active endpoints" in docker.refused("network", "rm", word, code=1)
    assert "It does not belong to any of this network's subnets" in docker.refused(
        "run", "--rm", "--network", word, "--ip", "10.94.0.9", "busybox", "true"
    )
    docker("network", "disconnect", word, sleeper)
    docker("network", "disconnect", "bridge", sleeper)
    docker("network", "connect", "bridge", sleeper)
    assert docker.out("exec", sleeper, "ls", "/sys/class/net").split() == ["eth0", "lo"]
    docker("network", "create", f"{word}-2")
    assert docker.out("network", "prune", "-f", "--filter", "until=1h") == ""
    assert docker.out("network", "prune", "-f", "--filter", "label!=keep").splitlines()[1:] == [f"{word}-2"]
    assert docker.out("network", "ls", "-q", "--filter", "label=keep", "--filter", f"name={word}")
    docker("network", "rm", word)
    for words, said in (
        (("host",), "predefined"),
        (("-d", "nosuch", "x1"), "nosuch"),
        (("-d", "overlay", "x1"), "not a swarm manager"),
        (("--config-only", "x1"), "ConfigOnly"),
    ):
        assert said in docker.refused("network", "create", *words, code=1)
    assert "pre-defined" in docker.refused("network", "rm", "bridge", code=1)


def test_volumes_that_a_filter_protects_stay(docker: Docker) -> None:
    word = f"v{uuid.uuid4().hex[:8]}"
    docker("volume", "create", "--label", "keep=1", word)
    docker("volume", "create", f"{word}-2")
    docker("run", "--rm", "-v", f"{word}-2:/v", "busybox", "dd", "if=/dev/zero", "of=/v/f", "bs=1024", "count=1024")
    said = docker.out("volume", "prune", "-af", "--filter", "label!=keep")
    assert f"{word}-2" in said
    assert word in docker.out("volume", "ls", "-q").splitlines()
    assert "Total reclaimed space: 0B" not in said
    assert "Invalid filter 'bogus'" in docker.refused("volume", "prune", "-f", "--filter", "bogus=1", code=1)
    docker("volume", "rm", word)
    assert "no such volume" in docker.refused("volume", "rm", word, code=1)


def test_prunes_take_durations(docker: Docker, name: str) -> None:
    docker("create", "--name", name, "busybox", "true")
    docker("system", "prune", "-af", "--filter", "until=24h")
    docker("container", "prune", "-f", "--filter", "until=1h30m")
    docker("image", "prune", "-af", "--filter", "until=24h", "--filter", "label=nosuch")
    assert docker.out("ps", "-aq", "--filter", f"name={name}")
    assert "failed to parse value as time or duration" in docker.refused(
        "container", "prune", "-f", "--filter", "until=nonsense", code=1
    )
    docker("container", "prune", "-f", "--filter", "label!=nosuch")
    assert docker.out("ps", "-aq", "--filter", f"name={name}") == ""


# --- the node --------------------------------------------------------------------------------------------------------


def test_what_the_node_is(docker: Docker, sleeper: str) -> None:
    version = json.loads(docker.out("version", "--format", "json"))
    assert (version["Client"]["ApiVersion"], version["Server"]["MinAPIVersion"]) == ("1.48", "1.24")
    info = json.loads(docker.out("info", "--format", "json"))
    assert (info["OSType"], info["Swarm"]["LocalNodeState"]) == ("linux", "inactive")
    usage = docker.out("system", "df", "-v")
    row = next(line for line in usage.splitlines() if sleeper in line)
    assert "busybox" in row
    assert "sleep 1000" in row
    assert "Up " in row


@pytest.mark.parametrize(
    "words",
    [
        ("node", "ls"),
        ("service", "ls"),
        ("stack", "ls"),
        ("secret", "ls"),
        ("config", "ls"),
        ("swarm", "join-token", "worker"),
        ("service", "create", "--name", "x1", "busybox"),
        ("secret", "create", "x1", "/etc/hostname"),
        ("swarm", "update", "--task-history-limit", "3"),
    ],
    ids=" ".join,
)
def test_outside_a_swarm(docker: Docker, words: tuple[str, ...]) -> None:
    assert "not a swarm manager" in docker.refused(*words, code=1)


def test_an_older_client_is_answered_in_its_own_version(docker: Docker) -> None:
    for version in ("1.24", "1.41", "1.43", "1.48"):
        assert docker.out("run", "--rm", "busybox", "echo", version, DOCKER_API_VERSION=version) == version
    said = docker.refused("ps", code=1, DOCKER_API_VERSION="1.99")
    assert "client version 1.99 is too new. Maximum supported API version is 1.48" in said
    said = docker.refused("ps", code=1, DOCKER_API_VERSION="1.12")
    assert "client version 1.12 is too old. Minimum supported API version is 1.24" in said
    for version in ("1.41", "1.48"):  # docker-compose 1 reads it, whatever version it has come to
        assert ask(docker, "GET", f"/v{version}/images/busybox/json")[1]["ContainerConfig"]["Volumes"] is None
    assert "VirtualSize" in ask(docker, "GET", "/v1.43/images/json")[1][0]


def ask(docker: Docker, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """One request as a program makes it; the status, and the answer's JSON."""
    words = ["curl", "-s", "-m", "30", "-X", method, "-w", "\n%{http_code}", "--unix-socket", docker.socket, f"http://x{path}"]
    if body is not None:
        words += ["-H", "Content-Type: application/json", "-d", body if isinstance(body, str) else json.dumps(body)]
    text, _, status = subprocess.run(words, capture_output=True, text=True, check=True).stdout.rpartition("\n")
    return int(status), json.loads(text) if text.strip() else None


MALFORMED: dict[str, tuple[str, object, str]] = {
    "labels of numbers": ("/containers/create", {"Image": "busybox", "Labels": {"a": 1}}, "Labels.a: a string is wanted"),
    "a number for a group": (
        "/containers/create",
        {"Image": "busybox", "HostConfig": {"CgroupParent": 5}},
        "HostConfig.CgroupParent: a string is wanted",
    ),
    "a string for a number": (
        "/containers/create",
        {"Image": "busybox", "HostConfig": {"Memory": "64m"}},
        "HostConfig.Memory: a whole number is wanted",
    ),
    "an object for a list": ("/containers/create", {"Image": "busybox", "Env": {"A": "1"}}, "Env: a list is wanted"),
    "a number beyond 64 bits": ("/containers/create", {"Image": "busybox", "HostConfig": {"Memory": 1 << 64}}, "out of range"),
    "no JSON": ("/containers/create", "{", "not JSON"),
    "a list": ("/containers/create", [], "an object is wanted"),
    "labels of a volume": ("/volumes/create", {"Name": "v1", "Labels": {"a": 1}}, "Labels.a: a string is wanted"),
    "labels of a network": ("/networks/create", {"Name": "n1", "Labels": {"a": 1}}, "Labels.a: a string is wanted"),
    "a network's name": ("/networks/create", {"Name": 5}, "Name: a string is wanted"),
    "no image": ("/containers/create", {}, "Image is missing"),
}


@pytest.mark.parametrize(("path", "body", "said"), MALFORMED.values(), ids=MALFORMED)
def test_a_wrong_body_is_refused_and_kept_nowhere(docker: Docker, path: str, body: object, said: str) -> None:
    """What one client has stored in a wrong form breaks the lists of all others."""
    status, answer = ask(docker, "POST", path, body)
    assert (status, said in answer["message"]) == (400, True), answer
    for words in (("ps", "-a"), ("volume", "ls"), ("network", "ls")):
        docker(*words)


def test_a_body_is_read_as_go_reads_it(docker: Docker, name: str) -> None:
    """Names in any case, null for nothing, and a word for a list of one."""
    status, made = ask(
        docker,
        "POST",
        f"/v1.48/containers/create?name={name}",
        {
            "image": "busybox",
            "cmd": "true",
            "Env": None,
            "HOSTCONFIG": {"autoremove": None, "memory": 64 << 20},
            "unknown": [1],
        },
    )
    assert status == 201, made
    found = docker.inspect(name)
    assert (found["Config"]["Cmd"], found["HostConfig"]["Memory"]) == (["true"], 64 << 20)


# --- registries ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(lab: Pystack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry on the node's own loopback; user `someone`, password `secret`."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed: run `make setup`")
    folder = tmp_path_factory.mktemp("registry")
    # bcrypt of the password
    (folder / "htpasswd").write_text("someone:$2y$05$G21XTJjm0ICgtNZFFSwJeOLJFkGuQgKBDDdvNOfD9AvVrc5p6nfsy\n")
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '127.0.0.1:5055'}}\n"
        f"log: {{level: error}}\nauth: {{htpasswd: {{realm: x, path: {folder}/htpasswd}}}}\n"
    )
    process = subprocess.Popen(
        ["nsenter", "-t", lab.pid("n1"), "-n", program, "serve", str(folder / "config.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> None:
        probe = ["nsenter", "-t", lab.pid("n1"), "-n", "curl", "-s", "http://127.0.0.1:5055/v2/"]
        assert subprocess.run(probe, capture_output=True, check=False).returncode == 0

    try:
        eventually(answers, 20)
        yield "127.0.0.1:5055"
    finally:
        process.kill()
        process.wait()


def test_a_registry_with_a_password(docker: Docker, registry: str) -> None:
    image = f"{registry}/own/box"
    docker("tag", "busybox", f"{image}:1")
    assert "(401)" in docker.refused("push", f"{image}:1", code=1)
    login: Callable[..., Any] = docker
    assert "401" in docker.refused("login", "-u", "someone", "--password-stdin", registry, stdin="wrong", code=1)
    assert "Login Succeeded" in login("login", "-u", "someone", "--password-stdin", registry, stdin="secret").stdout
    said = docker.out("push", f"{image}:1")
    assert f"The push refers to repository [{image}]" in said
    digest = re.search(r"1: digest: (sha256:[0-9a-f]{64}) size: \d+", said)
    assert digest
    docker("tag", f"{image}:1", f"{image}:2")
    docker("push", "-a", image)
    docker("rmi", f"{image}:1", f"{image}:2")
    assert f"Status: Downloaded newer image for {image}:1" in docker.out("pull", f"{image}:1")
    assert f"Status: Image is up to date for {image}:1" in docker.out("pull", f"{image}:1")
    assert docker.out("pull", "-q", f"{image}@{digest[1]}") == f"{image}@{digest[1]}"
    docker("rmi", f"{image}:1")
    docker("pull", "-a", image)
    assert set(docker.out("images", "--format", "{{.Tag}}", image).splitlines()) >= {"1", "2"}
    assert docker.out("run", "--rm", "--pull", "always", "-q", f"{image}:1", "echo", "pulled") == "pulled"
    assert "nosuch" in docker.refused("pull", f"{image}:nosuch", code=1)
    status, answer = ask(docker, "POST", f"/v1.48/images/create?fromImage={image}&tag=nosuch")
    assert status in (404, 500), answer  # before anything is told, an error is one of HTTP
    docker("logout", registry)
    assert "(401)" in docker.refused("pull", f"{image}:1", code=1)
    docker("rmi", "-f", f"{image}:1", f"{image}:2")
