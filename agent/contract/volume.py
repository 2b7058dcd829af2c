"""Volumes: where their data is, and which nodes mount them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from agent.contract.project_labels import project_labels
from agent.contract.wire import WireStruct

VOLUME_DRIVERS: dict[str, frozenset[str]] = {
    "local": frozenset({"type", "device", "o", "size"}),
    "nfs": frozenset({"server", "path", "device", "o"}),
    "cifs": frozenset({"device", "o"}),
    "glusterfs": frozenset({"servers", "volume", "device", "o"}),
    "sshfs": frozenset({"sshcmd", "port", "identity_file", "o"}),
}
"""Volume drivers, with the options that each has."""

NODE_LOCAL_TYPES = ("", "none", "bind", "tmpfs", "ext4", "xfs", "btrfs", "overlay")
"""Values of `type` with which a local volume is one node's own."""


def volume_driver(name: str) -> str:
    """A volume driver's own name: some are known by those of plugins too (`vieux/sshfs:latest`)."""
    return {"vieux/sshfs": "sshfs", "": "local", "default": "local"}.get(name.partition(":")[0], name)


def is_shared(driver: str, options: Iterable[tuple[str, str]]) -> bool:
    """Whether tasks on several nodes see one volume, rather than each node its own."""
    return driver != "local" or dict(options).get("type", "") not in NODE_LOCAL_TYPES


class VolumeHost(WireStruct, frozen=True, kw_only=True):
    """The node that exports a volume, and how its SSH server is reached and known (*host_key* in OpenSSH's form)."""

    node: str
    address: str = ""
    port: int = 22
    user: str = "root"
    host_key: str = ""


class VolumeClient(WireStruct, frozen=True, kw_only=True):
    """A node that mounts a volume of another, with the public SSH key that it comes with."""

    node: str
    key: str


class Volume(WireStruct, frozen=True, kw_only=True):
    """*node* is where a local volume's data lie, "" before its first user was placed; with *follow* they go where their
    users must go. For a volume that its home exports, the home's manifest has *clients*, and those of the others its
    *host*."""

    name: str
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    external: bool = False
    stack: str = ""
    key: str = ""
    node: str = ""
    follow: bool = False
    host: VolumeHost | None = None
    clients: tuple[VolumeClient, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether tasks on several nodes see one volume."""
        return is_shared(self.driver, self.options)

    @property
    def own_labels(self) -> dict[str, str]:
        """Its labels, and those that mark it as its stack's."""
        described = (self.name, self.driver, sorted(self.options), sorted(self.labels))
        return dict(self.labels) | project_labels("volume", self.stack, self.key, *described)

    @property
    def exported(self) -> bool:
        """Whether its home node exports it to the others."""
        return self.driver == "sshfs" and "sshcmd" not in dict(self.options)


class TreeChecksum(WireStruct, frozen=True, kw_only=True):
    """The content of a tree: *digest* is of all names, modes, owners, times, links, attributes and contents; *entries* maps
    each path to its own part."""

    digest: str
    files: int
    bytes: int
    entries: dict[str, str] = msgspec.field(default_factory=dict)
