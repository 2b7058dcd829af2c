"""The kinds of links that this kernel can create."""

from __future__ import annotations

import errno
import functools

from netplugins.errors import NetworkError
from netplugins.linux import netlink, netns, rtnetlink

KINDS = ("bridge", "veth", "vxlan", "vlan", "macvlan", "ipvlan", "wireguard", "ifb")


@functools.cache
def link_kinds() -> frozenset[str]:
    """Those of KINDS that the kernel has, found by creating one of each in a namespace that is deleted again."""
    return netns.isolated(_probe)


def _probe() -> frozenset[str]:
    found: set[str] = set()
    with netlink.Socket() as sock:
        for kind in KINDS:
            try:
                sock.run([rtnetlink.add_link(f"probe{kind}"[:15], kind)])
                found.add(kind)
            except NetworkError as error:
                # EOPNOTSUPP: unknown kind; any other error comes from the kind itself, which wants more parameters
                if error.errno != errno.EOPNOTSUPP:
                    found.add(kind)
    return frozenset(found)
