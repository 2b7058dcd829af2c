"""Networks and volumes that are not the stack's own: host, none, shared namespaces, external ones, the host's DNS."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack

pytestmark = pytest.mark.kernel
SLEEP = "command: sleep 1000\n    stop_grace_period: 0s"
# answers every A question with 198.51.100.7, and says so on stdout once it listens
NAMESERVER = textwrap.dedent("""
    import socket
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("10.99.0.254", 53)); print("ready", flush=True)
    while True:
        q, peer = s.recvfrom(512)
        end = q.index(0, 12) + 5
        known = q[end - 4:end - 2] == b"\\0\\x01"
        a = b"\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x3c\\0\\x04" + bytes([198, 51, 100, 7]) if known else b""
        s.sendto(q[:2] + b"\\x81\\x80\\0\\x01\\0" + (b"\\x01" if a else b"\\0") + b"\\0\\0\\0\\0" + q[12:end] + a, peer)
""")


@pytest.fixture
def nameserver(lab: Pystack) -> Iterator[None]:
    command = ["nsenter", "-t", lab.pid(), "-n", sys.executable, "-c", NAMESERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield
        process.kill()


def test_names_of_the_world_are_asked_of_the_hosts_nameserver(stack: Stack, lab: Pystack, nameserver: None) -> None:
    stack.up(f"services:\n  a:\n    image: busybox\n    {SLEEP}\n")
    assert "198.51.100.7" in stack.exec("a", "nslookup", "www.example.org")


def test_host_none_and_a_neighbours_namespace(stack: Stack, lab: Pystack) -> None:
    stack.up(
        f"services:\n  host:\n    image: busybox\n    {SLEEP}\n    network_mode: host\n"
        f"  none:\n    image: busybox\n    {SLEEP}\n    network_mode: none\n"
        f"  web:\n    image: busybox\n    command: httpd -f -p 80 -h /var/www\n    stop_grace_period: 0s\n"
        f"  side:\n    image: busybox\n    {SLEEP}\n    network_mode: service:web\n"
    )
    assert "10.99.0.1" in stack.exec("host", "ip", "-4", "addr", "show", "eth0")
    assert stack.exec("none", "ls", "/sys/class/net").split() == ["lo"]
    assert "UP" in stack.exec("none", "ip", "addr", "show", "lo")
    assert stack.exec("side", "wget", "-qO-", "http://127.0.0.1/") == "it works\n"
    assert stack.exec("side", "hostname") == stack.exec("web", "hostname")


def test_external_volumes_and_networks(stack: Stack, lab: Pystack) -> None:
    text = (
        f"services:\n  a:\n    image: busybox\n    {SLEEP}\n    networks: [shared]\n    volumes: ['kept:/data']\n"
        f"networks: {{shared: {{external: true, name: {stack.name}-net}}}}\n"
        f"volumes: {{kept: {{external: true, name: {stack.name}-vol}}}}\n"
    )
    missing = stack.up(text, check=False)
    assert missing.returncode == 1
    assert f"{stack.name}-net" in missing.stderr
    assert f"{stack.name}-vol" in missing.stderr
    lab("network", "create", f"{stack.name}-net")
    lab("volume", "create", f"{stack.name}-vol")
    try:
        stack.up()
        lab(
            "container",
            "run",
            "-d",
            "--name",
            f"{stack.name}-n",
            "--network",
            f"{stack.name}-net",
            "busybox",
            "httpd",
            "-f",
            "-h",
            "/var/www",
        )
        assert stack.exec("a", "wget", "-qO-", f"http://{stack.name}-n/") == "it works\n"
        stack.exec("a", "touch", "/data/mark")
        stack.down()
        assert f"{stack.name}-vol" in lab("volume", "ls").stdout
        assert f"{stack.name}-net" in lab("network", "ls").stdout
    finally:
        stack.down()
        lab("container", "rm", "-f", f"{stack.name}-n", check=False)
        lab("network", "rm", f"{stack.name}-net")
        lab("volume", "rm", f"{stack.name}-vol")


def test_bind_mounts_propagate_where_asked_and_take_selinux_suffixes(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    outer = Path(lab.environment["PYSTACK_ROOT"]) / f"{stack.name}-outer"
    stack.up(
        f"services:\n  a:\n    image: busybox\n    {SLEEP}\n    volumes:\n"
        f"      - ./plain:/plain:z\n      - ./made:/made:ro,Z\n"
        f"      - {{type: bind, source: {outer}, target: /outer, bind: {{propagation: rslave, create_host_path: true}}}}\n"
    )
    assert (tmp_path / "made").is_dir()
    stack.exec("a", "touch", "/plain/x")
    assert "Read-only" in stack.run("exec", "-T", "a", "touch", "/made/x", check=False).stderr
    lab.on("n1", "mount", "-t", "tmpfs", "tmpfs", str(outer))
    lab.on("n1", "touch", str(outer / "late"))
    try:
        assert stack.exec("a", "ls", "/outer") == "late\n"  # mounted on the host after the container began
    finally:
        lab.on("n1", "umount", str(outer))


def test_a_published_port_that_the_host_holds_is_said_before_anything_starts(stack: Stack, lab: Pystack) -> None:
    held = [
        "nsenter",
        "-t",
        lab.pid("n1"),
        "-n",
        sys.executable,
        "-c",
        "import socket, time; s = socket.socket(); s.bind(('0.0.0.0', 8099)); s.listen(); print('ready', flush=True)\n"
        "time.sleep(60)",
    ]
    with subprocess.Popen(held, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        try:
            done = stack.up(f"services:\n  a:\n    image: busybox\n    {SLEEP}\n    ports: ['8099:80']\n", check=False)
            assert done.returncode == 1
            assert "8099" in done.stderr
            assert "address already in use" in done.stderr
        finally:
            process.kill()
