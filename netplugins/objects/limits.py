"""Limits of a link's bandwidth: a token bucket on it for what it sends, and one on an ifb link for what it receives.

What is received cannot wait where it comes in: it is sent by the ifb link first, and then goes on as if it had just arrived,
so that rules and bridges see it as ever. Source: Documentation/networking/ifb of Linux; tc-mirred(8).
"""

from __future__ import annotations

import errno

from netplugins.driver import Rates
from netplugins.linux import netlink, rtnetlink, traffic

NOTHING = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})
"""What the kernel says where there is nothing to delete."""


def create_ifb(sock: netlink.Socket, name: str) -> int:
    """Create the ifb link *name*, up, where it does not exist. Returns its index."""
    if not sock.index(name):
        sock.run([rtnetlink.add_link(name, "ifb")])
    index = sock.index(name)
    sock.run([rtnetlink.link_up(index, name)])
    return index


def limit(sock: netlink.Socket, index: int, ifb: int, rates: Rates, mtu: int, what: str, *, redirected: bool) -> None:
    """Limit what the link *index* sends (egress) and receives (ingress), for which *ifb* is there, 0 for none. *redirected*:
    what it receives goes by that already."""
    for at, rate in ((index, rates.egress), (ifb, rates.ingress)):
        if rate:
            sock.run([traffic.set_bucket(at, rate, traffic.burst_of(rate, rates.burst, mtu), what)])
        elif at:
            sock.run([traffic.delete_bucket(at, what)], ignore=NOTHING)
    if redirected and rates.ingress:
        return
    sock.run([traffic.delete_redirection(index, what)], ignore=NOTHING)
    if rates.ingress:
        sock.run(traffic.redirect(index, ifb, what))


def clear(sock: netlink.Socket, index: int, what: str) -> None:
    """Take all limits from the link *index*."""
    for message in (traffic.delete_redirection(index, what), traffic.delete_bucket(index, what)):
        sock.run([message], ignore=NOTHING)
