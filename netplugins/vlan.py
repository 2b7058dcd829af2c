"""The names of parent links."""

from __future__ import annotations

import re
from collections.abc import Collection

_VLAN = re.compile(r"(.+)\.(\d{1,4})\Z")


def vlan_of(parent: str) -> tuple[str, int] | None:
    """(link, 802.1Q ID) where *parent* is written like a VLAN's link (`eth0.20`), else None."""
    match = _VLAN.match(parent)
    return (match[1], int(match[2])) if match and 1 <= int(match[2]) <= 4094 else None


def parent_available(parent: str, links: Collection[str]) -> bool:
    """Whether a host with *links* has *parent*, or can create it as a VLAN; "" stands for no parent, which suits every host."""
    vlan = vlan_of(parent)
    return not parent or parent in links or bool(vlan and vlan[0] in links)
