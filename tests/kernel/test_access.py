"""Tokens, over TLS, from elsewhere; the log of changes; and a browser's way through the socket."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from agent import cgroups
from agent.paths import locate
from tests.conftest import Pystack, eventually
from tests.images import archive, busybox_rootfs
from tests.kernel.test_tls import SERVER, issue

WEB = f"https://{SERVER}:8443"
STACK = "services:\n  web: {image: busybox, command: sleep 1000, stop_grace_period: 0s}\n"
PASSWORD = "green tea at four"


class Far:
    """A server on the machine outside, which answers at WEB. *root* is its folder, *certificates* the clients'."""

    def __init__(self, lab: Pystack, root: Path, certificates: Path) -> None:
        self.lab, self.root, self.certificates = lab, root, certificates
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYSTACK_")}
        self.here = {**kept, "PYSTACK_ROOT": str(root)}

    def run(self, *words: str, token: str = "", stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The command: root's at the socket, or that of the machine n1 with *token*."""
        command, environment = [sys.executable, "-m", "orchestrator", *words], self.here
        if token:
            command = ["nsenter", "-t", self.lab.pid("n1"), "-n", *command]
            environment = {
                **{k: v for k, v in self.here.items() if k != "PYSTACK_ROOT"},
                **{"PYSTACK_HOST": WEB, "PYSTACK_TOKEN": token, "PYSTACK_CERT_PATH": str(self.certificates)},
            }
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=90, check=False, input=stdin, cwd=cwd
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def root_does(self, *words: str, **options: Any) -> str:
        done = self.run(*words, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def far(lab: Pystack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    folder, root = tmp_path_factory.mktemp("certificates"), tmp_path_factory.mktemp("far")
    issue(folder / "server", "server", issue(folder / "ca", "ours", None, "127.0.0.1"), SERVER)
    (folder / "client").mkdir()
    (folder / "client/ca.pem").write_bytes((folder / "server/ca.pem").read_bytes())  # no certificate of its own
    made = Far(lab, root, folder / "client")
    environment = {**made.here, "PYSTACK_CERT_PATH": str(folder / "server")}
    command = ["nsenter", "-t", lab.pid("outside"), "-n", sys.executable, "-m", "orchestrator", "server", "--web", WEB]
    with (root / "said").open("wb") as said:
        server = subprocess.Popen(command, env=environment, stderr=said)

    def answers() -> None:
        assert (root / "run/pystack.sock").exists(), (root / "said").read_text()
        assert made.run("ls").returncode == 0, (root / "said").read_text()

    try:
        eventually(answers, 20)
        archive(root / "busybox.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest")
        made.root_does("image", "load", "-i", str(root / "busybox.tar"))
        yield made
    finally:
        made.run("down", "-p", "shop")
        server.terminate()
        server.wait(20)
        subprocess.run(["nsenter", "-t", lab.pid("outside"), "-n", "pkill", "-f", f"netplugins.dataplane {root}"], check=False)
        patch = pytest.MonkeyPatch()
        patch.setenv("PYSTACK_ROOT", str(root))
        assert cgroups.remove(locate().cgroup_parent)  # a lab takes its nodes' away itself
        patch.undo()


@contextmanager
def page(far: Far) -> Iterator[str]:
    """The address that `pystack ui` prints, as long as that runs."""
    command = [sys.executable, "-m", "orchestrator", "ui", "--no-open"]
    shown = subprocess.Popen(command, env=far.here, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert shown.stdout
    try:
        yield shown.stdout.readline().strip()
    finally:
        shown.terminate()
        shown.wait(10)
        shown.stdout.close()


def test_a_token_is_as_good_as_a_certificate_for_what_it_may(far: Far, tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(STACK)
    clerk = far.root_does("token", "create", "clerk", "--role", "operator", "--stack", "shop").strip()
    up = far.run("up", "-p", "shop", token=clerk, cwd=tmp_path)
    assert up.returncode == 0, up.stderr
    rows = json.loads(far.run("ps", "-p", "shop", "--format", "json", token=clerk).stdout)
    assert [r["state"] for r in rows] == ["running"]
    assert far.run("logs", "-p", "shop", token=clerk).returncode == 0
    inside = far.run("exec", "-T", "-p", "shop", "web", "sh", "-c", "cat; exit 3", token=clerk, stdin="typed\n")
    assert (inside.returncode, inside.stdout) == (3, "typed\n"), inside.stderr
    (tmp_path / "note").write_text("carried\n")
    copied = far.run("cp", "-p", "shop", "note", "web:/tmp/note", token=clerk, cwd=tmp_path)
    assert copied.returncode == 0, copied.stderr
    assert far.run("exec", "-T", "-p", "shop", "web", "cat", "/tmp/note", token=clerk).stdout == "carried\n"
    rooted = far.run("exec", "-T", "-p", "shop", "--privileged", "web", "id", token=clerk)
    assert (rooted.returncode, "--privileged reaches the node" in rooted.stderr) == (1, True), rooted.stderr
    foreign = far.root_does("container", "run", "-d", "--network", "none", "busybox", "sleep", "1000").strip()
    for asked in (("container", "exec", foreign, "id"), ("container", "rm", "-f", foreign)):
        assert "clerk" in far.run(*asked, token=clerk).stderr
    far.root_does("container", "rm", "-f", foreign)
    other = far.run("up", "-p", "bank", token=clerk, cwd=tmp_path)
    assert (other.returncode, other.stderr.strip()) == (1, "pystack: clerk has shop, and not bank")
    (tmp_path / "stack.yml").write_text(STACK.replace("busybox,", "busybox, privileged: true,"))
    rooted = far.run("up", "-p", "shop", token=clerk, cwd=tmp_path)
    assert (rooted.returncode, "privileged reaches the node" in rooted.stderr) == (1, True)
    assert far.run("ls", token="pystack_none").stderr.startswith("pystack: this token is not known")
    operator = far.root_does("token", "create", "hand", "--role", "operator").strip()
    text = "there and back\n" * 30_000
    words = ("container", "run", "-i", "--rm", "--network", "none", "busybox", "sh", "-c", "cat; exit 3")
    done = far.run(*words, token=operator, stdin=text)
    assert (done.returncode, done.stdout) == (3, text)
    log = json.loads(far.root_does("audit-log", "--stack", "shop", "--format", "json"))
    ups = [one for one in log if one["action"] == "POST /v1/up"]
    assert [(one["user"], one["outcome"]) for one in ups] == [("clerk", "done"), ("clerk", "refused")]
    assert ups[0]["source"] == "10.99.0.1"
    assert "create task shop-web-1" in ups[0]["steps"]
    assert json.loads(far.root_does("history", "-p", "shop", "--format", "json"))[0]["user"] == "clerk"
    far.root_does("token", "rm", "clerk")
    assert far.run("ls", token=clerk).returncode == 1


def test_a_browser_comes_through_the_socket_and_must_sign_in_there_too(far: Far) -> None:
    far.root_does("user", "create", "ada", "--password-stdin", stdin=f"{PASSWORD}\n")
    with page(far) as address:
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/ui/#code=(\S+)", address)
        assert found
        base, code = found.groups()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

        def post(body: dict[str, str]) -> Any:
            asked = urllib.request.Request(
                f"{base}/v1/session", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with browser.open(asked) as reply:
                return json.load(reply)

        with pytest.raises(urllib.error.HTTPError, match="401"):
            browser.open(f"{base}/v1/stacks")
        assert post({"code": code})["role"] == "admin"
        with browser.open(f"{base}/v1/session") as reply:
            assert json.load(reply)["name"] == "root"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            post({"code": code})
        assert post({"name": "ada", "password": PASSWORD})["role"] == "viewer"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            browser.open(f"{base}/v1/users")
        host, port = base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as plain:
            plain.sendall(b"GET /v1/nodes/local/engine/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert plain.recv(100).startswith(b"HTTP/1.1 401 ")
