"""Messages that shape what a link sends: a token bucket (TBF) on it, and a redirection of what it receives to another link.

Rates are bits a second of whole Ethernet frames, as tc(8) counts them; buckets and queues are bytes.
Source: tc-tbf(8), tc-u32(8), tc-mirred(8); linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h.
"""

from __future__ import annotations

import socket
import struct

from netplugins.linux import uapi
from netplugins.linux.netlink import Message, Socket, attribute, attributes, text, u32

_TCMSG = struct.Struct("=BxxxiIII").pack
_HANDLE = 1 << 16
"""1:, the handle of each bucket: one that has it is changed in place, with what waits in it."""
_NEW = uapi.NLM_F_CREATE | uapi.NLM_F_EXCL
_SET = uapi.NLM_F_CREATE | uapi.NLM_F_REPLACE
_PRIORITY = 1
QUEUE_S = 0.1
SMALLEST_QUEUE = 64 << 10
"""How long, and at least how many bytes, of packets wait for their turn; what is more is dropped, which tells a sender."""
BURST_S = 0.01
SMALLEST_BURST = 4 << 10
LARGEST_BURST = 256 << 20


def burst_of(rate: int, burst: int, mtu: int) -> int:
    """The size of a bucket: *burst* bytes where that is said, else what *rate* brings in 10 ms; a frame always fits."""
    wanted = burst or max(int(rate / 8 * BURST_S), SMALLEST_BURST)
    return min(max(wanted, 2 * (mtu + 18)), LARGEST_BURST)


def set_bucket(index: int, rate: int, burst: int, what: str) -> Message:
    """Let the link send *rate* bits a second, *burst* bytes at once; one that it has is changed in place."""
    a_second = rate // 8
    spec = struct.pack("=BBHhHI", 0, uapi.TC_LINKLAYER_ETHERNET, 0, 0, 0, min(a_second, 0xFFFFFFFF))
    queue = min(max(int(a_second * QUEUE_S), SMALLEST_QUEUE) + burst, 0xFFFFFFFF)
    options = attribute(uapi.TCA_TBF_PARMS, spec + bytes(12) + struct.pack("=III", queue, 0, 0))
    if a_second > 0xFFFFFFFF:
        options += attribute(uapi.TCA_TBF_RATE64, struct.pack("=Q", a_second))
    options += u32(uapi.TCA_TBF_BURST, burst)
    head = _TCMSG(socket.AF_UNSPEC, index, _HANDLE, uapi.TC_H_ROOT, 0)
    payload = head + text(uapi.TCA_KIND, "tbf") + attribute(uapi.TCA_OPTIONS, options)
    return Message(uapi.RTM_NEWQDISC, _SET, payload, f"limit what {what} sends to {rate} bit/s")


def delete_bucket(index: int, what: str) -> Message:
    """Let the link send what it can again."""
    head = _TCMSG(socket.AF_UNSPEC, index, 0, uapi.TC_H_ROOT, 0)
    return Message(uapi.RTM_DELQDISC, 0, head, f"end the limit of what {what} sends")


def delete_redirection(index: int, what: str) -> Message:
    """Let what the link receives go its usual way again."""
    head = _TCMSG(socket.AF_UNSPEC, index, 0, uapi.TC_H_INGRESS, 0)
    return Message(uapi.RTM_DELQDISC, 0, head, f"end the redirection of what {what} receives")


def redirect(index: int, to: int, what: str) -> list[Message]:
    """What the link receives, which is not redirected yet, is sent by the link *to* first, and comes back after that."""
    parent = uapi.TC_H_INGRESS & 0xFFFF0000
    ingress = _TCMSG(socket.AF_UNSPEC, index, parent, uapi.TC_H_INGRESS, 0) + text(uapi.TCA_KIND, "ingress")
    mirred = struct.pack("=IIiiiiI", 0, 0, uapi.TC_ACT_STOLEN, 0, 0, uapi.TCA_EGRESS_REDIR, to)
    action = text(uapi.TCA_ACT_KIND, "mirred")
    action += attribute(uapi.TCA_ACT_OPTIONS, attribute(uapi.TCA_MIRRED_PARMS, mirred))
    everything = struct.pack("=BBBxHHHhI", uapi.TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + bytes(16)  # one key with an empty mask
    options = attribute(uapi.TCA_U32_SEL, everything) + attribute(uapi.TCA_U32_ACT, attribute(1, action))
    info = _PRIORITY << 16 | socket.htons(uapi.ETH_P_ALL)
    filter_ = _TCMSG(socket.AF_UNSPEC, index, 0, parent, info)
    filter_ += text(uapi.TCA_KIND, "u32") + attribute(uapi.TCA_OPTIONS, options)
    return [
        Message(uapi.RTM_NEWQDISC, _NEW, ingress, f"prepare the redirection of what {what} receives"),
        Message(uapi.RTM_NEWTFILTER, _NEW, filter_, f"redirect what {what} receives"),
    ]


def dump(sock: Socket) -> tuple[dict[int, int], set[int]]:
    """Of the socket's namespace: link index → bits a second of its token bucket, and the links whose packets are redirected."""
    rates: dict[int, int] = {}
    redirected: set[int] = set()
    for answer in sock.dump(uapi.RTM_GETQDISC, _TCMSG(socket.AF_UNSPEC, 0, 0, 0, 0)):
        index, _, parent = struct.unpack_from("=iII", answer, 4)
        parts = attributes(answer[20:])
        kind = parts.get(uapi.TCA_KIND, b"").rstrip(b"\0")
        if kind == b"ingress":
            redirected.add(index)
        elif kind == b"tbf" and parent == uapi.TC_H_ROOT:
            options = attributes(parts.get(uapi.TCA_OPTIONS, b""))
            (rate,) = struct.unpack_from("=I", options[uapi.TCA_TBF_PARMS], 8)
            if wide := options.get(uapi.TCA_TBF_RATE64):
                (rate,) = struct.unpack("=Q", wide)
            rates[index] = rate * 8
    return rates, redirected
