"""What a container with CAP_NET_RAW sends in others' names reaches nobody; on a network whose guard is off, all of it does."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.conftest import Pystack, Stack
from tests.kernel.attacks import Attacker

pytestmark = pytest.mark.kernel
FILE = """
services:
  liar: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, networks: [net]}
  ear: {image: busybox, command: httpd -f -p 80 -h /var/www, stop_signal: SIGKILL, networks: [net]}
networks:
  net: {driver: bridge, enable_ipv6: true, driver_opts: {anti_spoofing: "%s"}}
"""
LIES = """
import re, socket, struct, subprocess, sys
own, other, gate = sys.argv[1:]
said = subprocess.check_output(["ip", "-o", "-4", "address"], text=True)
link = re.search(r"\\d+: (\\S+) +inet %s/" % re.escape(own), said)[1]
said = subprocess.check_output(["ip", "-o", "-6", "address", "show", "dev", link], text=True)
own6 = next(a for a in re.findall(r"inet6 (\\S+)/", said) if not a.startswith("fe80"))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); raw.bind((link, 0))
mac = raw.getsockname()[4]
wrong, all_, four, six = b"\\2\\x42\\xaa\\xaa\\xaa\\xaa", b"\\xff" * 6, socket.inet_aton, lambda a: socket.inet_pton(10, a)
def frame(kind, body, source=mac, to=all_): raw.send(to + source + struct.pack("!H", kind) + body)
def ip(source, word):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(word), 1, 0, 64, 253, 0) + four(source) + four("255.255.255.255")
    n = sum(struct.unpack("!10H", head)); n = (n >> 16) + (n & 0xffff)
    return head[:10] + struct.pack("!H", ~n & 0xffff) + head[12:] + word
def ip6(source, proto, body): return struct.pack("!IHBB", 6 << 28, len(body), proto, 255) + six(source) + six("ff02::1") + body
def arp(op, hw, address, word): return struct.pack("!HHBBH", 1, 0x800, 6, 4, op) + hw + four(address) + all_ + four(own) + word
def icmp6(source, kind, body):
    packet = six(source) + six("ff02::1") + struct.pack("!II", 4 + len(body), 58) + bytes([kind, 0, 0, 0]) + body
    packet += b"\\0" * (len(packet) % 2); n = sum(struct.unpack("!%dH" % (len(packet) // 2), packet))
    n = (n >> 16) + (n & 0xffff); n += n >> 16
    return ip6(source, 58, bytes([kind, 0]) + struct.pack("!H", ~n & 0xffff) + body)
flags, gate6 = struct.pack("!I", 0x20000000), own6.rsplit(":", 1)[0] + ":1"
frame(0x800, ip(own, b"honest-ipv4"))
frame(0x806, arp(1, mac, own, b"honest-arp"))
frame(0x86dd, ip6(own6, 59, b"honest-ipv6"))
frame(0x86dd, icmp6(own6, 136, flags + six(own6) + b"honest-nd!"))
frame(0x800, ip(own, b"foreign-mac"), wrong)
frame(0x800, ip(other, b"foreign-ipv4"))
frame(0x86dd, ip6(gate6, 59, b"foreign-ipv6"))
frame(0x806, arp(2, mac, gate, b"foreign-arp"))
frame(0x806, arp(2, wrong, own, b"foreign-arp-mac"))
frame(0x86dd, icmp6(own6, 136, flags + six(gate6) + b"foreign-nd"))
frame(0x86dd, icmp6(own6, 134, b"\\x40\\0\\7\\x08" + b"\\0" * 8 + b"foreign-ra"))
frame(0x8100, b"\\0\\5\\x08\\0" + ip(other, b"foreign-vlan"))
frame(0x88cc, b"x", b"\\2\\x42\\xbb\\xbb\\xbb\\xbb", b"\\1\\x80\\xc2\\0\\0\\x0e")
"""
EAR = """
import re, socket, time
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); raw.settimeout(0.2)
print("on", flush=True); heard, until = set(), time.time() + 2
while time.time() < until:
    try: heard |= set(re.findall(rb"(?:honest|foreign)-[a-z0-9-]+", raw.recv(65536)))
    except TimeoutError: pass
print(b" ".join(sorted(heard)).decode())
"""
HONEST = {"honest-ipv4", "honest-arp", "honest-ipv6", "honest-nd"}
FOREIGN = {f"foreign-{what}" for what in ("mac", "ipv4", "ipv6", "arp", "arp-mac", "nd", "ra", "vlan")}


def heard(stack: Stack, guard: str) -> tuple[set[str], bool]:
    """What the neighbour of a liar hears, and whether the bridge learned a MAC from the liar's LLDP frame."""
    stack.up(FILE % guard)
    liar, ear = Attacker(stack, "liar-1"), Attacker(stack, "ear-1")
    own, other = (next(iter(a.addresses.values())) for a in (liar, ear))
    with subprocess.Popen(ear.words(EAR), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "on\n"
        assert liar.run(LIES, own, other, f"{own.rpartition('.')[0]}.1") == ""
        words = set(process.stdout.read().split())
    return words, "02:42:bb:bb:bb:bb" in stack.pystack.on(liar.node, "bridge", "fdb", "show")


def test_lies_reach_nobody(stack: Stack, lab: Pystack) -> None:
    assert heard(stack, "true") == (HONEST, False)
    assert stack.exec("liar", "wget", "-qO-", "http://ear/") == "it works\n"
    found = json.loads(lab("doctor", "--format", "json").stdout)
    assert [f for f in found if f["check"] == "firewall" and f["ok"]]


def test_without_the_guard_they_do(stack: Stack, lab: Pystack) -> None:
    words, learned = heard(stack, "false")
    assert (words, learned) == (HONEST | FOREIGN, False)
    for one in json.loads(lab.on("n1", "ip", "-json", "link", "show", "type", "bridge")):  # other tests' networks may be there
        lab.on("n1", "ip", "link", "set", one["ifname"], "type", "bridge", "no_linklocal_learn", "0")
    assert heard(stack, "false") == (HONEST | FOREIGN, True)
