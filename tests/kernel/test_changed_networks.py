"""A network that changes under running tasks: they are given its new addresses, and are the same containers."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

pytestmark = pytest.mark.kernel
FILE = """
services:
  web:
    image: busybox
    command: httpd -f -p 80 -h /srv
    stop_grace_period: 0s
    ports: ['18870:80']
    networks: {net: {aliases: [shop]}, other: {}}
    deploy: {replicas: 2}
  client:
    image: busybox
    command: sleep 1000
    stop_grace_period: 0s
    networks: [net]
    depends_on: [web]
networks:
  net: {NET}
  other: {}
"""


def ids(stack: Stack) -> dict[str, object]:
    return {name: (row["id"], row["started"], row["restarts"]) for name, row in stack.ps().items()}


def reaches(stack: Stack, name: str) -> None:
    assert "hello" in stack.run("exec", "-T", "client", "wget", "-qO-", f"http://{name}/hello").stdout


@pytest.mark.parametrize(
    "change",
    [
        "{ipam: {config: [{subnet: 10.66.7.0/24}]}}",
        "{enable_ipv6: true, ipam: {config: [{subnet: 10.66.7.0/24}, {subnet: 'fd66:7::/64'}]}}",
        "{driver_opts: {com.docker.network.driver.mtu: '1400'}}",
        "{internal: true}",
    ],
)
def test_who_is_on_it_is_reconnected(stack: Stack, change: str) -> None:
    stack.up(FILE.replace("{NET}", "{ipam: {config: [{subnet: 10.66.0.0/24}]}}"))
    before = ids(stack)
    reaches(stack, "shop")
    stack.write(FILE.replace("{NET}", change))
    steps = json.loads(stack.run("plan", "--json").stdout)["steps"]
    assert {s["action"] for s in steps if s["kind"] == "network" and s["name"].endswith("_net")} == {"replace"}
    assert {s["action"] for s in steps if s["kind"] == "task"} <= {"update", "none"}
    stack.run("up")
    assert ids(stack) == before
    addresses = {name: row["addresses"][f"{stack.name}_net"] for name, row in stack.ps().items()}  # type: ignore[index]
    for name, address in addresses.items():
        service, _, index = name.partition("-")
        seen = stack.run("exec", "-T", "--index", index, service, "ip", "-o", "address").stdout
        assert f" {address}/" in seen
        assert seen.count("10.66.0.") == 0 or "10.66.0." in address
        assert f"{address}\t" in stack.run("exec", "-T", "--index", index, service, "cat", "/etc/hosts").stdout
    if "10.66.7" in change:
        assert all(a.startswith("10.66.7.") for a in addresses.values())
    eventually(lambda: reaches(stack, "shop"))
    reaches(stack, "web")
    assert "hello" in stack.pystack.on("n1", "wget", "-q", "-T", "2", "-O", "-", "http://127.0.0.1:18870/hello")
    assert not any(json.loads(stack.run("plan", "--json").stdout)["summary"].values())
    stack.run("restart")
    reaches(stack, "shop")


def test_an_overlay_of_two_nodes_too(tmp_path: object) -> None:
    with cluster_of(2) as lab:
        _on_two(lab, Stack(lab, tmp_path))  # type: ignore[arg-type]


def _on_two(lab: Pystack, stack: Stack) -> None:
    text = (
        "services:\n  a:\n    image: busybox\n    command: httpd -f -p 80 -h /srv\n    stop_grace_period: 0s\n"
        "    networks: [net]\n    deploy: {placement: {constraints: [node.hostname == n1]}}\n"
        "  client:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n    networks: [net]\n"
        "    deploy: {placement: {constraints: [node.hostname == n2]}}\n"
        "networks: {net: {ipam: {config: [{subnet: 10.67.N.0/24}]}}}\n"
    )
    stack.up(text.replace("N.0", "1.0"))
    before = ids(stack)
    reaches(stack, "a")
    stack.up(text.replace("N.0", "2.0"))
    assert ids(stack) == before
    assert all(row["addresses"][f"{stack.name}_net"].startswith("10.67.2.") for row in stack.ps().values())  # type: ignore[index]
    eventually(lambda: reaches(stack, "a"))
    stack.down()
    del lab
