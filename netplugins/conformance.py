"""Tests of what every network driver must do, on the real kernel in network namespaces of their own.

    python -m netplugins.conformance MODULE:CLASS [OPTION=VALUE ...]

A driver on a parent link finds `lan0` (option `parent=lan0`), whose other end is another machine. Needs root.
"""

from __future__ import annotations

import errno
import importlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from netplugins.driver import Driver, Endpoint, HostCapabilities, Network, NetworkState, Subnet
from netplugins.errors import NetworkError
from netplugins.kernel import Kernel, features, links, prepare_namespace
from netplugins.linux import netlink, netns, rtnetlink

PREFIX = "cf"
SUBNETS = (Subnet("10.77.0.0/24", "10.77.0.1"), Subnet("fd77::/64", "fd77::1"))


class CheckResult(msgspec.Struct, frozen=True):
    """The result of one case; *problem* "" if it holds."""

    case: str
    problem: str


class ConformanceError(Exception):
    """The driver fails the case; the text says how."""


class Testbed:
    """A host in a namespace of its own with a LAN (`lan0`), and three endpoints for a network of the driver."""

    def __init__(self, make: Callable[[str], Driver], options: Mapping[str, str], directory: Path) -> None:
        self.driver = make(PREFIX)
        self.directory = directory
        self.host = HostCapabilities(features=features(), links=frozenset({"lan0"}))
        self.network = Network(
            name="conform", link=f"{PREFIX}b1", driver=self.driver.name, subnets=SUBNETS, options=dict(options)
        )
        self.endpoints = [
            Endpoint(
                id=f"{n:x}" * 16, network="conform", netns=str(directory / f"e{n}"), ipv4=f"10.77.0.{n}", ipv6=f"fd77::{n}"
            )
            for n in (2, 3, 4)
        ]
        self.kernel = Kernel(PREFIX)

    def desired_state(self, *numbers: int) -> NetworkState:
        """The network with the endpoints of these *numbers*."""
        return self.driver.desired_state(self.network, [self.endpoints[n] for n in numbers], self.host)

    def make(self, *numbers: int) -> None:
        """Make the network with the endpoints of these *numbers*. Raises ConformanceError, NetworkError."""
        described = self.desired_state(*numbers)
        problems = self.kernel.converge(described.objects, described.fdb)
        if problems:
            raise ConformanceError("; ".join(problems.values()))

    def own(self) -> dict[str, int]:
        """The links that were created on the host, with their indices."""
        return {name: index for index, name in socket.if_nameindex() if name not in ("lo", "lan0")}

    def reach(self, one: int, other: int, size: int = 1200) -> None:
        """Send a datagram of *size* bytes from each of two endpoints to the other, in both families. Raises
        ConformanceError."""
        for field in ("ipv4", "ipv6"):
            for a, b in ((one, other), (other, one)):
                source, target = self.endpoints[a], self.endpoints[b]
                if not _datagram(source.netns, target.netns, getattr(target, field), size):
                    raise ConformanceError(
                        f"a datagram from {getattr(source, field)} to {getattr(target, field)} does not arrive"
                    )


def _datagram(source: str, target: str, address: str, size: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def opened() -> socket.socket:
        return socket.socket(family, socket.SOCK_DGRAM)

    with netns.enter(target, opened) as receiver, netns.enter(source, opened) as sender:
        receiver.settimeout(2)
        try:
            receiver.bind((address, 7777))
            sender.sendto(b"x" * size, (address, 7777))
            return len(receiver.recv(size + 1)) == size
        except OSError:  # TimeoutError among them
            return False


def describes_the_same_twice(testbed: Testbed) -> None:
    """desired_state is pure: it describes the same network and endpoints equally, in any order."""
    if not testbed.desired_state(0, 1) == testbed.desired_state(0, 1) == testbed.desired_state(1, 0):
        raise ConformanceError("two calls of desired_state with the same endpoints differ")


def names_links_with_the_prefix(testbed: Testbed) -> None:
    """The names of links on the host begin with the prefix, and are no longer than IFNAMSIZ allows."""
    for item in testbed.desired_state(0, 1, 2).objects:
        if not item.name.startswith(PREFIX):
            raise ConformanceError(f"link {item.name} does not begin with the prefix {PREFIX!r}: nothing would delete it")
        if hasattr(item, "master") and len(item.name) > 15:
            raise ConformanceError(f"link name {item.name} is longer than 15 bytes")


def connects_its_endpoints(testbed: Testbed) -> None:
    """All endpoints of a network reach each other, in both families."""
    testbed.make(0, 1, 2)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        testbed.reach(one, other)


def is_idempotent(testbed: Testbed) -> None:
    """Converging again leaves each link as it is."""
    testbed.make(0, 1)
    before = testbed.own()
    testbed.make(0, 1)
    if testbed.own() != before:
        raise ConformanceError("links were created again, though nothing had changed")
    testbed.reach(0, 1)


def is_adopted_after_a_restart(testbed: Testbed) -> None:
    """A restarted agent takes over the existing links: connections go on."""
    testbed.make(0, 1)
    before, inside = testbed.own(), indices(testbed)
    testbed.kernel.close()
    testbed.kernel = Kernel(PREFIX)
    testbed.kernel.adopt(testbed.desired_state(0, 1).objects)
    testbed.make(0, 1)
    if testbed.own() != before or indices(testbed) != inside:
        raise ConformanceError("links were created again after a restart")
    testbed.reach(0, 1)


def indices(testbed: Testbed) -> list[list[tuple[int, str]]]:
    """The links in the endpoints' namespaces, (index, name)."""
    return [netns.enter(e.netns, socket.if_nameindex) for e in testbed.endpoints]


def removes_one_endpoint(testbed: Testbed) -> None:
    """The removal of one endpoint changes nothing of the others."""
    testbed.make(0, 1, 2)
    testbed.make(0, 2)
    testbed.reach(0, 2)
    if [name for _, name in netns.enter(testbed.endpoints[1].netns, socket.if_nameindex)] != ["lo"]:
        raise ConformanceError("the removed endpoint still has its link")


def restores_deleted_links(testbed: Testbed) -> None:
    """Links that were deleted by hand are found missing, and created again."""
    testbed.make(0, 1)
    with netlink.Socket() as sock:
        for name in testbed.own():
            sock.run(rtnetlink.delete_links([name]), ignore=frozenset({errno.ENODEV}))
    testbed.kernel.detect_drift()
    testbed.make(0, 1)
    testbed.reach(0, 1)


def leaves_nothing(testbed: Testbed) -> None:
    """Nothing of a network is left, on the host or in namespaces, once it is no longer described."""
    testbed.make(0, 1, 2)
    testbed.kernel.converge(frozenset())
    if left := testbed.own():
        raise ConformanceError(f"left on the host: {', '.join(left)}")
    if any(len(names) > 1 for names in indices(testbed)):
        raise ConformanceError("links are left in the endpoints' namespaces")


def reports_what_is_missing(testbed: Testbed) -> None:
    """`missing` has sentences for a host that can create no links, and none for one that has everything."""
    missing = testbed.driver.missing(testbed.network, HostCapabilities())
    if not missing or not all(isinstance(line, str) and line for line in missing):
        raise ConformanceError("missing() returns no sentences for a host that lacks everything")
    if now := testbed.driver.missing(testbed.network, testbed.host):
        raise ConformanceError(f"missing() on a host that has everything: {'; '.join(now)}")


CASES = (
    describes_the_same_twice,
    names_links_with_the_prefix,
    connects_its_endpoints,
    is_idempotent,
    is_adopted_after_a_restart,
    removes_one_endpoint,
    restores_deleted_links,
    leaves_nothing,
    reports_what_is_missing,
)


def run(make: Callable[[str], Driver], options: Mapping[str, str]) -> Iterator[CheckResult]:
    """Each case on a host of its own. Needs root."""
    for case in CASES:
        yield CheckResult(case.__name__, try_case(case, make, options))


def try_case(case: Callable[[Testbed], None], make: Callable[[str], Driver], options: Mapping[str, str]) -> str:
    """Why *case* fails, "" if it holds."""

    def body() -> str:
        testbed = Testbed(make, options, directory)
        try:
            case(testbed)
        except (ConformanceError, NetworkError) as error:
            return str(error)
        finally:
            testbed.kernel.close()
        return ""

    with _host() as directory:
        return netns.enter(directory / "host", body)


@contextmanager
def _host() -> Iterator[Path]:
    """Namespaces `host`, `wire` and those of the endpoints, in a folder that is deleted again."""
    with tempfile.TemporaryDirectory(prefix="pystack-conformance-") as name:
        directory = Path(name)
        paths = [directory / part for part in ("host", "wire", "e2", "e3", "e4")]
        try:
            for path in paths:
                netns.create(path, prepare_namespace)
            netns.enter(directory / "host", lambda: _wire(directory / "wire"))
            yield directory
        finally:
            for path in paths:
                netns.delete(path)


def _wire(far: Path) -> None:
    """Create `lan0`, whose other end is in *far*."""
    handle = os.open(far, os.O_RDONLY | os.O_CLOEXEC)
    try:
        subprocess.run(
            ["ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns", f"/proc/self/fd/{handle}"],
            check=True,
            pass_fds=(handle,),
        )
    finally:
        os.close(handle)
    with netlink.Socket() as sock:
        sock.run([rtnetlink.link_up(sock.index("lan0"), "lan0")])
    netns.enter(far, lambda: subprocess.run(["ip", "link", "set", "lan0", "up"], check=True))
    assert "lan0" in links()


def main(arguments: list[str]) -> int:
    """The command line. Returns the exit status: 1 where a case fails, 2 for wrong arguments."""
    if not arguments or ":" not in arguments[0]:
        print(__doc__)
        return 2
    module, _, name = arguments[0].partition(":")
    sys.path.insert(0, str(Path.cwd()))
    make = getattr(importlib.import_module(module), name)
    failed = 0
    for result in run(make, dict(a.split("=", 1) for a in arguments[1:])):
        failed += bool(result.problem)
        print(
            f"{'FAIL' if result.problem else 'ok  '} {result.case.replace('_', ' ')}"
            + (f": {result.problem}" if result.problem else "")
        )
    print(f"{len(CASES) - failed} of {len(CASES)} hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
