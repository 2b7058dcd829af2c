"""The links of one instance in the host's namespace: their indices, and the socket that changes them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence

from netplugins.driver import ParentedLink
from netplugins.errors import NetworkError
from netplugins.linux import netlink, rtnetlink

MISSING = frozenset({errno.ENODEV})


class Links:
    """Links whose name begins with *prefix*. Indices are kept: a dump for each container would make attaching quadratic."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.socket = netlink.Socket()
        self.parented: dict[str, tuple[ParentedLink, int]] = {}
        """Links that were created in containers' namespaces, with their parent's index: no dump of the host shows them."""
        self._indices: dict[str, int] = {}

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def refresh(self) -> list[str]:
        """Read the indices from the kernel again. Returns the names of all links, those in containers' namespaces included."""
        self._indices = {name: index for index, name in socket.if_nameindex() if name.startswith(self.prefix)}
        return [*self._indices, *self.parented]

    def forget_deleted(self) -> set[str]:
        """Forget the indices of links that the host has no more. Returns the names of all links that the host has."""
        found = {name: index for index, name in socket.if_nameindex()}
        self._indices = {name: index for name, index in found.items() if name in self._indices}
        return set(found)

    def forget_orphans(self) -> list[str]:
        """Forget the links in containers' namespaces whose parent was deleted, and they with it. Returns their names."""
        orphans = [name for name, (link, parent) in self.parented.items() if self.find(link.parent) != parent]
        for name in orphans:
            del self.parented[name]
        return orphans

    def __contains__(self, name: str) -> bool:
        return name in self._indices

    def indices(self, part: str) -> dict[int, str]:
        """Index → name of the links whose name goes on with *part* after the prefix."""
        return {index: name for name, index in self._indices.items() if name.startswith(self.prefix + part)}

    def find(self, name: str) -> int:
        """The index of any link of the host, 0 if there is none."""
        return self._indices.get(name) or self.socket.index(name)

    def index(self, name: str) -> int:
        """The index of a link of this instance, 0 if there is none."""
        if name not in self._indices:
            self._indices[name] = self.socket.index(name)
        return self._indices[name]

    def created(self, name: str) -> int:
        """The index of a link that was just created."""
        self._indices[name] = self.socket.index(name)
        return self._indices[name]

    def parent(self, name: str) -> int:
        """The index of a link of the host that others are created on; never kept, for it is not ours. Raises NetworkError."""
        index = self.socket.index(name)
        if not index:
            raise NetworkError(f"the parent link {name} does not exist")
        return index

    def delete(self, names: Sequence[str]) -> None:
        """Delete links of the host at once; those that do not exist are skipped. Raises NetworkError."""
        if names:
            self.socket.run(rtnetlink.delete_links(names), ignore=MISSING)
        self.forget(names)

    def forget(self, names: Iterable[str]) -> None:
        """Forget the indices of links that were deleted."""
        for name in names:
            self._indices.pop(name, None)
