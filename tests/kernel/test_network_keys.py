"""Each key of a network and of a service's place on it has its effect inside the container."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import Stack

pytestmark = pytest.mark.kernel


def test_links_mac_link_local_and_pools(stack: Stack) -> None:
    stack.up("""
services:
  one:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    mac_address: 02:42:aa:bb:cc:dd
    links: ["two:database", three]
    networks:
      a: {link_local_ips: [169.254.7.7]}
      b: {}
  two: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: [a]}
  three: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: [b]}
networks:
  a:
    ipam:
      config:
        - {subnet: 172.30.0.0/24, ip_range: 172.30.0.128/28, gateway: 172.30.0.254, aux_addresses: {printer: 172.30.0.128}}
        - {subnet: 172.31.5.0/24}
  b: {}
""")
    shown = stack.exec("one", "ip", "addr", "show", "eth0")
    assert "02:42:aa:bb:cc:dd" in shown
    assert "169.254.7.7/16" in shown
    tasks = stack.ps()
    addresses = {t: tasks[t]["addresses"][f"{stack.name}_a"] for t in ("one-1", "two-1")}  # type: ignore[index]
    assert set(addresses.values()) == {"172.30.0.129", "172.30.0.130"}, "from the range, the reserved one left out"
    assert f"Address: {addresses['two-1']}" in stack.exec("one", "nslookup", "database")
    assert "172.30.0.254" in stack.exec("two", "ip", "route")
    assert stack.exec("three", "nslookup", "database", check=False).count("Address") < 2, "a link is its owner's alone"


def test_an_address_of_the_second_pool(stack: Stack) -> None:
    stack.up("""
services:
  far: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: {a: {ipv4_address: 172.31.9.9}}}
networks:
  a: {ipam: {config: [{subnet: 172.30.9.0/24}, {subnet: 172.31.9.0/24}]}}
""")
    assert "172.31.9.9/24" in stack.exec("far", "ip", "addr")
    assert "via 172.31.9.1" in stack.exec("far", "ip", "route")


def test_a_platform_that_is_not_here_is_refused(stack: Stack) -> None:
    done = stack.up("services: {a: {image: busybox, platform: linux/s390x}}", check=False)
    assert done.returncode == 1
    assert "node.platform.arch == s390x (it has amd64)" in done.stderr
    stack.up("services: {a: {image: busybox, command: sleep 100, platform: linux/x86_64, stop_signal: SIGKILL}}")


def test_replicas_share_a_published_port(stack: Stack) -> None:
    stack.up("""
services:
  web:
    image: busybox
    command: sh -c "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    ports: ["18099:80"]
    deploy: {replicas: 3}
""")
    seen = {stack.pystack.on("outside", "curl", "-s", "-m", "5", "http://10.99.0.1:18099").strip() for _ in range(40)}
    assert seen == {str(t["id"])[:12] for t in stack.ps().values()}


def test_a_udp_client_that_never_pauses_reaches_the_container_that_took_anothers_place(stack: Stack) -> None:
    """Its flow is known to the kernel as one to the first container; no packet of it would ever meet a rule again."""
    text = """
services:
  echo:
    image: busybox
    entrypoint: [/usr/bin/python3, -c]
    command:
    - |
      import socket
      s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
      s.bind(("", 5353))
      while True:
          s.sendto(b"%s", s.recvfrom(99)[1])
    volumes: ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro"]
    stop_signal: SIGKILL
    ports: ["15353:5353/udp"]
    networks: {default: {ipv4_address: 10.77.0.%d}}
networks: {default: {ipam: {config: [{subnet: 10.77.0.0/24}]}}}
"""
    lab = stack.pystack
    client = (
        "import socket, time\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 40404)); s.settimeout(0.2)\n"
        "heard = ''\n"
        "end = time.monotonic() + 10\n"
        "while time.monotonic() < end and WORD not in heard:\n"
        "    s.sendto(b'x\\n', ('10.99.0.1', 15353))\n"
        "    try: heard += s.recv(99).decode()\n"
        "    except OSError: pass\n"
        "print(heard)\n"
    )

    def hears(word: str) -> None:
        assert word in lab.on("outside", sys.executable, "-c", client.replace("WORD", repr(word)))

    stack.up(text % ("first", 10))
    hears("first")
    stack.up(text % ("second", 20))
    hears("second")
