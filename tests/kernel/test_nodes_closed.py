"""Nodes are closed to containers: what a container with CAP_NET_RAW reaches of them, and what it would without each guard.

A guard is taken away while the node's agent is stopped, which would put it back at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually
from tests.kernel.attacks import Attacker, root, table

pytestmark = pytest.mark.long

FILE = """
services:
  a:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    deploy: {mode: global}
    networks: [wide, plain]
  every:
    image: busybox
    command: httpd -f -p 80 -h /var/www
    stop_signal: SIGKILL
    ports: ["18081:80"]
    deploy: {placement: {constraints: [node.hostname == n2]}}
    networks: [wide]
  there:
    image: busybox
    command: httpd -f -p 80 -h /var/www
    stop_signal: SIGKILL
    ports: [{target: 80, published: 18082, mode: host}]
    deploy: {placement: {constraints: [node.hostname == n2]}}
    networks: [plain]
networks:
  wide: {}
  plain: {driver: bridge, enable_ipv6: true}
"""
HELLO = (
    "import socket; s = socket.create_server(('::', %d), family=10, dualstack_ipv6=True); print('on', flush=True)\n"
    "while True: c, _ = s.accept(); c.send(b'SSH-2.0 for a test'); c.close()"
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        (root(pystack, "n1") / "config.yml").write_text("open_to_containers: [9100/tcp]\n")
        pystack("lab", "fault", "--name", pystack.lab, "kill", "n1", "server")
        for node, address in (("n1", "10.98.0.1"), ("n2", "10.98.0.2")):  # an address besides that of the underlay
            pystack.on(node, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        eventually(lambda: ready(pystack), 20)
        yield pystack


def ready(lab: Pystack) -> None:
    done = lab("node", "ls", "--format", "json", check=False)
    assert done.returncode == 0
    assert done.stdout.count('"ready"') == 2


@contextmanager
def without(lab: Pystack, node: str, *rule: str) -> Iterator[None]:
    """With nft's *rule* put in on *node*, in `TABLE`'s place its table's name."""
    name = table(lab, node)
    lab("lab", "fault", "--name", lab.lab, "pause", node)
    try:
        lab.on(node, "nft", *(name if w == "TABLE" else w for w in rule))
        yield
    finally:
        lab("lab", "fault", "--name", lab.lab, "resume", node)
    eventually(lambda: healed(lab, node, name), 5)


def healed(lab: Pystack, node: str, name: str) -> None:
    assert "guard off" not in lab.on(node, "nft", "list", "ruleset")
    assert "from_containers" in lab.on(node, "nft", "list", "table", "inet", name)


def off(chain: str, verdict: str = "accept") -> tuple[str, ...]:
    return ("insert", "rule", "inet", "TABLE", chain, verdict, "comment", '"guard off"')


@contextmanager
def serving(lab: Pystack, node: str, port: int) -> Iterator[None]:
    with subprocess.Popen(
        ["nsenter", "-t", lab.pid(node), "-n", sys.executable, "-c", HELLO % port], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout
            server.stdout.readline()
            yield
        finally:
            server.kill()


def test_no_service_of_any_node_is_reached_at_any_address(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)
    attacker = Attacker(stack, "a-n1")
    (other,) = (
        a
        for a in lab.on("n2", "ip", "-o", "-4", "address").split()
        if a.startswith("172.18.0.") and a.endswith("/24") and a != "172.18.0.1/24" and ".255" not in a
    )
    own = ["172.18.0.1", "172.18.1.1", "fd70:7973::1", "10.99.0.1", "10.98.0.1", "fd99::1"]
    far = ["10.99.0.2", "10.98.0.2", "fd99::2"]
    beside = other.split("/")[0]  # n2's own address on the overlay, to which packets go over VXLAN

    def reached(port: int) -> list[str]:
        return [a for a in (*own, *far, beside) if attacker.reaches(a, port)]

    assert reached(22) == []
    with serving(lab, "n1", 2222), serving(lab, "n2", 2222):  # as the lab's sshd, and for IPv6 too
        assert reached(2222) == []
        with without(lab, "n1", *off("from_containers")):
            assert reached(2222) == own
        with without(lab, "n1", *off("to_node", "return")):
            assert reached(2222) == far
        with without(lab, "n2", *off("from_containers")):
            assert reached(2222) == [beside]


def test_what_is_published_opened_or_answered_passes(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)
    attacker = Attacker(stack, "a-n1")
    page = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode())"
    for url in ("10.99.0.1:18081", "10.98.0.2:18081", "10.99.0.2:18082", "[fd99::2]:18082"):
        assert attacker.run(page, f"http://{url}/") == "it works", url
    assert "urlopen error" in attacker.run(page, "http://10.99.0.1:18082/")  # published on n2 alone
    assert stack.exec("a", "wget", "-qO-", "http://every/") == "it works\n"
    for node, address in (("n1", "172.18.1.1"), ("n1", "10.99.0.1"), ("n2", "10.99.0.2")):
        for port, passes in ((9100, True), (9101, False)):
            with serving(lab, node, port):
                assert attacker.reaches(address, port) == passes, (address, port)
        assert "1 packets received" in stack.exec("a", "ping", "-c", "1", "-W", "2", address)
    container = Attacker(stack, "a-n2")
    with serving(lab, "n2", 9100):  # n2 opens nothing
        assert not container.reaches("10.99.0.2", 9100)
    # what a node asks of a container is answered
    assert lab.on("n2", "curl", "-s", "-m", "3", "http://10.99.0.2:18082/") == "it works\n"
    inside = Attacker(stack, "there-1").addresses[f"{stack.name}_plain"]
    assert lab.on("n2", "curl", "-s", "-m", "3", f"http://{inside}/") == "it works\n"


def test_the_doctor_is_content(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)
    found = json.loads(lab("doctor", "--format", "json").stdout)
    assert [f for f in found if f["check"] == "firewall" and f["ok"]]
    assert [f for f in found if not f["ok"]] == []


def test_a_nodes_new_address_is_closed_too(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)
    attacker = Attacker(stack, "a-n1")
    lab.on("n2", "ip", "address", "add", "10.98.0.77/24", "dev", "eth0")
    try:
        eventually(lambda: closed(attacker, "10.98.0.77"), 5)
        with without(lab, "n1", *off("to_node", "return")):
            assert attacker.reaches("10.98.0.77")
    finally:
        lab.on("n2", "ip", "address", "del", "10.98.0.77/24", "dev", "eth0")


VXLAN = """
import socket, struct, sys
victim, vni, lie, mac, node = sys.argv[1:]
def total(data):
    n = sum(struct.unpack("!%dH" % (len(data) // 2), data)); n = (n >> 16) + (n & 0xffff)
    return ~(n + (n >> 16)) & 0xffff
def ip(source, to, body):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0) + socket.inet_aton(source) + socket.inet_aton(to)
    return head[:10] + struct.pack("!H", total(head)) + head[12:] + body
def udp(port, body): return struct.pack("!4H", port, port, 8 + len(body), 0) + body
def hw(text): return bytes.fromhex(text.replace(":", ""))
inner = hw(mac) + hw("02:42:00:00:00:09") + b"\\x08\\0" + ip(lie, victim, udp(7000, b"forged"))
packet = udp(4789, struct.pack("!BxxxI", 8, int(vni) << 8) + inner)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(packet[8:], (node, 4789))
"""
LISTEN = (
    "import socket; s = socket.socket(2, 2); s.bind(('', 7000)); s.settimeout(1.5); print('on', flush=True); "
    "print(s.recv(99).decode())"
)


@contextmanager
def listening(at: Attacker) -> Iterator[subprocess.Popen[str]]:
    """UDP port 7000 of a container, for 1.5 s; what comes first is what the process prints."""
    with subprocess.Popen(at.words(LISTEN), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as ear:
        assert ear.stdout
        assert ear.stdout.readline() == "on\n"
        yield ear


def test_forged_vxlan_packets_reach_nobody(lab: Pystack, stack: Stack) -> None:
    stack.up(FILE)
    attacker, victim = Attacker(stack, "a-n1"), Attacker(stack, "a-n2")
    wide = f"{stack.name}_wide"
    target = victim.addresses[wide]
    mac = "02:42:" + ":".join(f"{int(part):02x}" for part in target.split("."))
    links = json.loads(lab.on("n2", "ip", "-json", "-d", "link", "show", "type", "vxlan"))
    vni = str(next(one["linkinfo"]["info_data"]["id"] for one in links))

    def send(machine: str) -> bool:
        words = (target, vni, "172.18.0.200", mac, "10.99.0.2")
        with listening(victim) as ear:
            if machine:
                lab.on(machine, "python3", "-c", VXLAN, *words)
            else:
                attacker.run(VXLAN, *words)
            assert ear.stdout
            return ear.stdout.read() == "forged\n"

    assert not send("")
    assert not send("outside")
    with without(lab, "n1", *off("to_node", "return")):
        assert send("")  # it leaves with n1's address, a peer's
    with without(lab, "n2", *off("input")):
        assert send("outside")


def closed(attacker: Attacker, address: str) -> None:
    assert not attacker.reaches(address)
