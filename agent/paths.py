"""The directories of one instance. `PYSTACK_ROOT` moves all of them, so that two instances can run on one host."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from agent import cgroups, rootless

DEFAULT_ROOT = Path("/var/lib/pystack")
NAMESPACE_DIGITS = 16
"""How much of a container's ID names its namespaces."""


class Paths(msgspec.Struct, frozen=True):
    """*root* holds state that outlives a reboot, *run* sockets and state that does not."""

    root: Path
    run: Path
    tag: str
    """"" for the default instance; otherwise four hex digits that tell its links, table and cgroups apart."""

    @property
    def link_prefix(self) -> str:
        """The prefix of the names of this instance's links."""
        return f"ps{self.tag or 't'}"  # "t" is not a hexadecimal digit: no other instance has this prefix

    @property
    def table(self) -> str:
        """The name of this instance's nftables table."""
        return f"pystack{'_' + self.tag if self.tag else ''}"

    @property
    def cgroup_parent(self) -> str:
        """The cgroup of all containers, from the root of each hierarchy; "" if this user may not make any."""
        if rootless.inside():
            return f"{own}/pystack" if (own := cgroups.delegated()) else ""
        return f"/pystack{'-' + self.tag if self.tag else ''}"

    @property
    def control_socket(self) -> Path:
        """The socket of the agent's own API."""
        return self.run / "pystack.sock"

    @property
    def docker_socket(self) -> Path:
        """The socket of the Docker Engine API; PYSTACK_DOCKER_SOCKET names another."""
        return Path(os.environ.get("PYSTACK_DOCKER_SOCKET", "") or self.run / "docker.sock")

    @property
    def cluster_socket(self) -> Path:
        """The socket at which a server that leads shows the cluster to Docker's clients, as a swarm."""
        return self.run / "swarm.sock"

    @property
    def web_socket(self) -> Path:
        """The socket of the server's API at which nobody is root: who asks shows a token, or has signed in."""
        return self.run / "web.sock"

    @property
    def images(self) -> Path:
        """The directory of blobs and image names."""
        return self.root / "images"

    @property
    def layers(self) -> Path:
        """The directory of unpacked layers."""
        return self.root / "layers"

    @property
    def containers(self) -> Path:
        """The directory of containers: records, logs, writable layers."""
        return self.root / "containers"

    def container(self, ident: str) -> Path:
        """The state of the container *ident* that outlives a reboot: its record, writable layer and log."""
        return self.containers / ident

    @property
    def bundles(self) -> Path:
        """The directory of the state of running containers, which a reboot removes."""
        return self.run / "containers"

    def bundle(self, ident: str) -> Path:
        """The state of the container *ident* while it runs: OCI bundle, mounted root, conmon's files, secrets in the clear."""
        return self.bundles / ident

    @property
    def keys(self) -> Path:
        """The directory of this host's private keys."""
        return self.root / "keys"

    @property
    def volumes(self) -> Path:
        """The directory of volumes."""
        return self.root / "volumes"

    @property
    def netns(self) -> Path:
        """The directory of network namespaces."""
        return self.run / "netns"

    def network_namespace(self, ident: str) -> Path:
        """The network namespace of the container *ident*."""
        return self.netns / ident[:NAMESPACE_DIGITS]

    @property
    def userns(self) -> Path:
        """The directory of user namespaces."""
        return self.run / "userns"

    def user_namespace(self, ident: str) -> Path:
        """The user namespace of the container *ident*."""
        return self.userns / ident[:NAMESPACE_DIGITS]

    def listener(self, ident: str) -> Path:
        """The socket at which the system calls of the container *ident* are reported, where they are."""
        return self.run / "observed" / ident[:NAMESPACE_DIGITS]

    @property
    def runc(self) -> Path:
        """The directory of the runtime's state."""
        return self.run / "runc"


def locate() -> Paths:
    """The instance that the environment asks for."""
    if asked := os.environ.get("PYSTACK_ROOT"):
        root = Path(asked).resolve()
        return Paths(root, root / "run", hashlib.sha256(str(root).encode()).hexdigest()[:3])
    if os.geteuid() == 0 and not rootless.inside():
        return Paths(DEFAULT_ROOT, Path("/run/pystack"), "")
    data = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "pystack"
    user = os.environ.get(rootless.MARK, os.geteuid())
    run = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{user}")) / "pystack"
    return Paths(data, run, "")
