"""What a node's network costs at scale, in a network namespace of its own: 10,000 far endpoints brought into the kernel, and
one backend of 5,000 services changed. Baselines are the goals: there is no rival that does the same."""

from __future__ import annotations

import ctypes
import json
import statistics
import subprocess
import sys
import time

import msgspec

from bench.rows import Row, row, size
from netplugins.linux.uapi import CLONE_NEWNET

FAR, SERVICES, ROUNDS = size(10_000, 100), size(5_000, 100), size(9, 2)
GOAL_FAR_S, GOAL_CHANGE_MS = 0.2, 1.0


def measure() -> dict[str, Row]:
    """Rows of both changes, measured by this module in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "bench.netplane"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return {
        "far_endpoints_10000": row(found["far"], GOAL_FAR_S),
        "vip_change_of_5000": row(found["change"], GOAL_CHANGE_MS, "ms"),
    }


def _far() -> float:
    from netplugins.driver import HostCapabilities, Network, RemoteEndpoint, Subnet
    from netplugins.kernel import Kernel
    from netplugins.overlay import OverlayDriver

    remotes = tuple(RemoteEndpoint(underlay=f"10.9.{i % 50}.2", ipv4=f"172.20.{i // 250}.{i % 250 + 2}") for i in range(FAR))
    took = []
    for number in range(3):
        prefix = f"ps{number}"
        network = Network(
            name="x",
            link=f"{prefix}b1",
            driver="overlay",
            subnets=(Subnet("172.20.0.0/16", "172.20.0.1"),),
            vni=5000 + number,
            underlay="10.9.0.1",
            own=("172.20.255.1",),
            remotes=remotes,
        )
        kernel = Kernel(prefix)
        start = time.perf_counter()
        described = OverlayDriver(prefix).desired_state(network, [], HostCapabilities())
        kernel.converge(described.objects, described.fdb)
        took.append(time.perf_counter() - start)
        kernel.converge(frozenset())
    return statistics.median(took)


def _change() -> float:
    from netplugins import firewall
    from netplugins.driver import LoadBalancer
    from netplugins.linux import netlink
    from netplugins.linux.uapi import NETLINK_NETFILTER

    balanced = [
        LoadBalancer(
            version=4,
            address=f"198.18.{i // 250}.{i % 250 + 1}",
            ports=(),
            backends=(f"172.20.{i // 250}.{i % 250 + 2}", f"172.21.{i // 250}.{i % 250 + 2}"),
        )
        for i in range(SERVICES)
    ]
    before = firewall.render("bench", [], [], balanced)
    firewall.apply(before.whole(1))
    took = []
    sock = netlink.Socket(NETLINK_NETFILTER)
    for number in range(ROUNDS):
        balanced[7] = msgspec.structs.replace(balanced[7], backends=(f"172.22.0.{number + 2}", "172.21.0.9"))
        start = time.perf_counter()
        after = firewall.render("bench", [], [], balanced)
        changes = after.changes(before)
        assert changes
        after.amend(changes, sock)
        took.append((time.perf_counter() - start) * 1e3)
        before = after
    sock.close()
    return statistics.median(took)


if __name__ == "__main__":
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise SystemExit("a network namespace of its own needs root")
    print(json.dumps({"far": _far(), "change": _change()}))
