"""Encrypted overlays: what nodes say to each other is not read on the wire. A real WireGuard, of the kernel or wireguard-go."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplugins.kernel import features
from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif("wireguard" not in features(), reason="no WireGuard, neither in the kernel nor wireguard-go"),
]

FILE = """
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; echo %(word)s > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    networks: [wide]
    deploy: {replicas: 2, placement: {max_replicas_per_node: 1}}
  client:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    networks: [wide]
    deploy: {mode: global}
networks:
  wide:
    driver: overlay
    driver_opts: {%(options)s}
"""
SNIFF = """
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("eth0", 0))
wire.settimeout(60)
print("on", flush=True)
seen = set()
while True:
    frame = wire.recv(65536)
    seen |= {w for w in (b"open-letter", b"sealed-letter") if w in frame}
    if frame[12:14] == b"\\x08\\x00" and frame[23] == 17:
        seen.add(b"udp %d" % int.from_bytes(frame[36:38], "big"))
        if frame[42:] .startswith(b"END"):
            print(b" ".join(sorted(seen)).decode())
            break
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        yield pystack


def overheard(lab: Pystack, stack: Stack) -> set[str]:
    """What passes n1's interface while each client asks each web server: words of the pages, and UDP ports."""
    pid = lab.pid("n1")
    with subprocess.Popen(["nsenter", "-t", pid, "-n", "python3", "-c", SNIFF], stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout
        assert sniffer.stdout.readline() == "on\n"
        pages = set()
        for index in ("1", "2"):
            for server in ("web-1", "web-2"):
                page = stack.run("exec", "-T", "--index", index, "client", "wget", "-qO-", f"http://{stack.name}-{server}/")
                pages.add(page.stdout.strip())
        lab.on("outside", "python3", "-c", "import socket; socket.socket(2, 2).sendto(b'END', ('10.99.0.1', 9))")
        out = sniffer.stdout.readline()
    assert len(pages) == 1  # all four asked and were answered
    return set(out.replace("udp ", "udp:").split())


def test_the_wire_carries_what_is_open_and_hides_what_is_encrypted(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE % {"word": "open-letter", "options": ""})
    heard = overheard(lab, stack)
    assert "open-letter" in heard
    assert "udp:4789" in heard
    stack.down()
    stack.up(FILE % {"word": "sealed-letter", "options": "encrypted: ''"})
    heard = overheard(lab, stack)
    assert "sealed-letter" not in heard
    assert "udp:4789" not in heard
    assert "udp:51871" in heard
    assert "mtu 1370" in stack.exec("client", "ip", "link", "show", "eth0")


def test_a_tunnel_is_healed_kept_and_taken_away(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE % {"word": "sealed-letter", "options": "encrypted: ''"})
    ask = ("exec", "-T", "--index", "2", "client", "timeout", "2", "wget", "-qO-", f"http://{stack.name}-web-1/")
    stack.run(*ask)

    link = lab.on("n2", "sh", "-c", "ip -br link | grep -o 'ps[0-9a-f]*wg'").strip()

    def index() -> str:
        return str(json.loads(lab.on("n2", "ip", "-j", "link", "show", "dev", link))[0]["ifindex"])

    before = index()
    lab("lab", "fault", "--name", lab.lab, "kill", "n2", "agent")

    def whole() -> None:
        found = json.loads(lab("doctor", "--format", "json", check=False).stdout)
        assert [f for f in found if not f["ok"]] == []
        assert [f for f in found if f["check"] == "tunnel"]

    eventually(whole, 20)
    assert index() == before  # adopted: sessions went on
    lab.on("n2", "ip", "link", "del", link)

    def healed() -> None:
        assert index() != before
        assert stack.run(*ask, check=False).returncode == 0

    eventually(healed, 10)
    stack.down()

    def gone() -> None:
        assert link not in lab.on("n2", "ip", "-br", "link")
        assert "wireguard-go" not in lab.on("n2", "ps", "-eo", "args")

    eventually(gone, 5)


def test_a_server_that_starts_keeps_the_tunnels_to_nodes_that_say_nothing(lab: Pystack, stack: Stack, tmp_path: Path) -> None:
    """n2's agent stands still while the server is exchanged; its containers run, and n1 goes on talking to them."""
    stack.up(FILE % {"word": "sealed-letter", "options": "encrypted: ''"})
    far = next(r for r in stack.ps().values() if r["node"] == "n2" and r["service"] == "web")
    (address,) = far["addresses"].values()  # type: ignore[attr-defined]
    other = Stack(lab, tmp_path / "other")
    other.directory.mkdir()

    def states() -> dict[str, str]:
        nodes = json.loads(lab("node", "ls", "--format", "json", check=False).stdout or "[]")
        return {n["name"]: n["state"] for n in nodes}

    def server_is_back() -> None:
        assert states() == {"n1": "ready", "n2": "down"}

    def all_are_back() -> None:
        assert states() == {"n1": "ready", "n2": "ready"}

    lab("lab", "fault", "--name", lab.lab, "pause", "n2", "agent")
    try:
        lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")
        eventually(server_is_back, 20)
        only_n1 = "deploy: {placement: {constraints: [node.hostname == n1]}}"
        other.up("services: {a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, " + only_n1 + "}}")
        page = stack.run("exec", "-T", "--index", "1", "client", "timeout", "5", "wget", "-qO-", f"http://{address}/")
        assert page.stdout == "sealed-letter\n"
    finally:
        lab("lab", "fault", "--name", lab.lab, "resume", "n2", "agent")
    eventually(all_are_back, 20)
    other.down()
