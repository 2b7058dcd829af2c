"""A node as the control plane knows it."""

from __future__ import annotations

from typing import Literal

from agent.contract.status import NodeInfo
from agent.contract.wire import WireStruct

Availability = Literal["active", "pause", "drain"]


class Node(WireStruct, frozen=True, kw_only=True):
    """A node.

    *target* is its SSH address (`root@10.0.0.2:22`), "" for the server's own host. *underlay* is the address at which the
    other nodes reach it, for overlay networks. *host_key* is the SSH host key that was accepted when the node was added, in
    OpenSSH's one-line form. With the *transport* etcd, the node reads its manifest from the store itself; streams still use
    SSH. One with the transport uplink joined by a token, and dials the servers; *uplink_key* is the hash of the key of its
    certificate, *next_uplink_key* that of the one that it asked for last, and comes with next, *past_uplink_keys* those that it
    gave up by itself, the last at *exchanged* (seconds since 1970); *copied* says why it is locked out, "" if it is not. A
    *server* can lead the cluster: its role is manager. *taints* keep tasks off (`taints.py`). *availability*: an active node
    takes tasks, a paused one only keeps those it has, a drained one has none; one that *departed* is drained until its machine
    is back. *emptied* names the services (STACK/NAME) of mode global that a drain took a task of: those come back with the node
    although they have no task left. *path_mtu* is the measured MTU of the paths to it, in bytes, 0 if that is its link's.
    *info* is the newest that the node has reported."""

    name: str
    id: str
    target: str = ""
    underlay: str = ""
    host_key: str = ""
    root: str = ""
    transport: Literal["ssh", "etcd", "uplink"] = "ssh"
    uplink_key: str = ""
    next_uplink_key: str = ""
    past_uplink_keys: tuple[str, ...] = ()
    exchanged: float = 0.0
    copied: str = ""
    server: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[str, ...] = ()
    availability: Availability = "active"
    departed: bool = False
    emptied: tuple[str, ...] = ()
    path_mtu: int = 0
    info: NodeInfo = NodeInfo()

    @property
    def is_servers_own(self) -> bool:
        """Whether it is the host of a server that stands alone: nothing has to be reached."""
        return not self.target and self.transport != "uplink"

    @property
    def mtu(self) -> int:
        """The largest packet that can be sent to it and from it, in bytes."""
        return min(self.path_mtu or self.info.mtu, self.info.mtu)
