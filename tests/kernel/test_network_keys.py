"""Each key of a network and of a service's place on it has its effect inside the container."""

from __future__ import annotations

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
