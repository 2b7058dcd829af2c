"""Where the member of this host lives, and what it needs to know."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

import msgspec

from agent.contract.atomic import write_atomically
from orchestrator.errors import PystackError

CLIENT_PORT, PEER_PORT = 2379, 2380
PREFIX = "pystack"
"""All keys are below it."""


def client_url(address: str) -> str:
    """Where the member at *address* answers clients."""
    return f"https://{bracketed(address)}:{CLIENT_PORT}"


def peer_url(address: str) -> str:
    """Where the member at *address* answers the other members."""
    return f"https://{bracketed(address)}:{PEER_PORT}"


def bracketed(address: str) -> str:
    """*address* as a URL has it."""
    return f"[{address}]" if ":" in address else address


class MemberSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The member *name* at the IP address *address*; *advertise* is how other servers reach this host over SSH. *members* are
    all that are known, by name. *joining*: the member is new in a cluster that is there. *forced*: the next start makes a
    cluster of this member alone."""

    name: str
    address: str
    advertise: str
    members: dict[str, str]
    joining: bool = False
    forced: bool = False

    @property
    def store(self) -> str:
        """The address of the store; this host's member is the first to be asked."""
        addresses = dict.fromkeys((self.address, *self.members.values()))
        return f"etcd://{','.join(f'{bracketed(a)}:{CLIENT_PORT}' for a in addresses)}/{PREFIX}"


def own_places() -> tuple[Path, Path]:
    """The state folder of this host's instance, and its control socket; of root, as several servers are root's."""
    if root := os.environ.get("PYSTACK_ROOT"):
        return Path(root), Path(root) / "run/pystack.sock"
    return Path("/var/lib/pystack"), Path("/run/pystack/pystack.sock")


class MemberFolder:
    """The files of this host's member, below the state folder *root*."""

    def __init__(self, root: Path) -> None:
        self.path = root / "etcd"
        self.data, self.log, self.pid = self.path / "data", self.path / "etcd.log", self.path / "pid"
        self.snapshots = self.path / "snapshots"
        self.authority = self.path / "authority.pem"
        self.ca, self.cert, self.key = self.path / "ca.pem", self.path / "cert.pem", self.path / "key.pem"
        self._settings = self.path / "settings.json"

    def settings(self) -> MemberSettings | None:
        """None if this host has no member. Raises PystackError if the file is damaged."""
        try:
            return msgspec.json.decode(self._settings.read_bytes(), type=MemberSettings)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise PystackError(f"{self._settings} is damaged: {error}: restore it, or `pystack server join` again") from None

    def write(self, settings: MemberSettings) -> None:
        """Keep *settings*: with them, this host has a member."""
        write_atomically(self._settings, msgspec.json.encode(settings), 0o600, sync=True)

    def write_certificates(self, ca: str, authority: str, cert: str, key: str) -> None:
        """Keep the certificate of the authority, that with its key, and this member's."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, text in ((self.ca, ca), (self.authority, authority), (self.cert, cert), (self.key, key)):
            write_atomically(path, text.encode(), 0o600, sync=True)


def address_of(advertise: str) -> str:
    """The IP address of the host in USER@HOST[:PORT]: etcd listens at addresses alone. Raises PystackError."""
    from orchestrator.transport.ssh import SshTarget

    host = SshTarget.parse(advertise).host
    try:
        found = str(socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise PystackError(f"--advertise {advertise}: {host}: {error.strerror}: name this host's address") from None
    if ipaddress.ip_address(found).is_loopback:
        raise PystackError(f"--advertise {advertise}: {found} is this host's for itself: name the address that others reach")
    return found
