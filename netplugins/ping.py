"""ICMP echoes to many hosts at once, small ones and ones as large as a path should carry (RFC 792, RFC 4443)."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Sequence

import msgspec

from netplugins.linux import uapi
from netplugins.linux.checksum import checksum

TRIES, WAIT_S = 3, 0.5
HEADER = {4: 28, 6: 48}
"""Bytes of the IP and ICMP headers, by version of IP."""
_REPLIES = (bytes([uapi.ICMP_ECHOREPLY]), bytes([uapi.ICMPV6_ECHO_REPLY]))


class EchoProbe(msgspec.Struct, frozen=True):
    """An echo of *size* bytes, IP header included and never fragmented, from *source* to *target*."""

    source: str
    target: str
    size: int


class Echo(msgspec.Struct, frozen=True):
    """The reply came after *seconds*; *problem* says why none came, and is "" if one did."""

    seconds: float = 0.0
    problem: str = ""


def ask(probes: Sequence[EchoProbe]) -> list[Echo]:
    """Send all probes at once, each up to three times; every try ends after 0.5 s. Returns an Echo for each probe, in their
    order. Needs CAP_NET_RAW."""
    answers: list[Echo | None] = [None] * len(probes)
    for _ in range(TRIES):
        open_ = [n for n, a in enumerate(answers) if a is None or a.problem == "no answer"]
        if not open_:
            break
        _round(probes, open_, answers)
    return [a or Echo(problem="no answer") for a in answers]


def _round(probes: Sequence[EchoProbe], numbers: Sequence[int], answers: list[Echo | None]) -> None:
    with contextlib.ExitStack() as stack:
        waiting: dict[int, tuple[socket.socket, int, float]] = {}
        for number in numbers:
            probe = probes[number]
            version = 6 if ":" in probe.target else 4
            try:
                sock = stack.enter_context(_socket(version))
                sock.bind((probe.source, 0))
                sock.connect((probe.target, 0))
                payload = b"\0" * max(0, probe.size - HEADER[version])
                sock.send(_echo(version, number, payload))
                waiting[sock.fileno()] = sock, number, time.monotonic()
            except OSError as error:
                answers[number] = _refused(error)
        until = time.monotonic() + WAIT_S
        while waiting and (left := until - time.monotonic()) > 0:
            for handle in select.select(list(waiting), [], [], left)[0]:
                sock, number, sent = waiting[handle]
                try:
                    data = sock.recv(65536)
                except OSError as error:
                    answers[number] = _refused(error)
                    del waiting[handle]
                    continue
                body = data if ":" in probes[number].target else data[(data[0] & 15) * 4 :]
                if body[:1] in _REPLIES and struct.unpack_from("!H", body, 4)[0] == number & 0xFFFF:
                    answers[number] = Echo(seconds=time.monotonic() - sent)
                    del waiting[handle]


def _refused(error: OSError) -> Echo:
    return Echo(problem="too large for the path" if error.errno == errno.EMSGSIZE else str(error.strerror))


def _socket(version: int) -> socket.socket:
    if version == 4:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        sock.setsockopt(socket.IPPROTO_IP, uapi.IP_MTU_DISCOVER, uapi.IP_PMTUDISC_PROBE)
    else:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        sock.setsockopt(socket.IPPROTO_IPV6, uapi.IPV6_MTU_DISCOVER, uapi.IP_PMTUDISC_PROBE)
    return sock


def _echo(version: int, number: int, payload: bytes) -> bytes:
    kind = uapi.ICMP_ECHO if version == 4 else uapi.ICMPV6_ECHO_REQUEST
    head = struct.pack("!BBHHH", kind, 0, 0, number & 0xFFFF, 1)
    if version == 6:  # the kernel fills in the checksum
        return head + payload
    return head[:2] + struct.pack("!H", checksum(head + payload)) + head[4:] + payload
