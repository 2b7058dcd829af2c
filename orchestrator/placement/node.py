"""A node as the control plane knows it."""

from __future__ import annotations

from typing import Literal

from agent.contract.status import NodeInfo
from agent.contract.wire import WireStruct

Availability = Literal["active", "pause", "drain"]


class Node(WireStruct, frozen=True, kw_only=True):
    """*target* is how it is reached over SSH (`root@10.0.0.2:22`), "" for the server's own host. *underlay* is the
    address under which the other nodes reach it, for overlay networks. *host_key* is the SSH host key that was accepted
    when it was added, in OpenSSH's one-line form. *info* are what it last said of itself.

    *taints* keep tasks off (`taints.py`).

    By *transport* etcd it reads its manifest from the store itself; streams go over SSH all the same.

    A *server* may lead the cluster: its role is manager.

    *path_mtu* is what the paths to it were found to carry, 0 where its link's MTU says it.

    active takes tasks; pause keeps what it has and takes none; drain gives its tasks away."""

    name: str
    id: str
    target: str = ""
    underlay: str = ""
    host_key: str = ""
    root: str = ""
    transport: Literal["ssh", "etcd"] = "ssh"
    server: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[str, ...] = ()
    availability: Availability = "active"
    path_mtu: int = 0
    info: NodeInfo = NodeInfo()

    @property
    def mtu(self) -> int:
        """The largest packet that can be sent to it and from it, in bytes."""
        return min(self.path_mtu or self.info.mtu, self.info.mtu)
