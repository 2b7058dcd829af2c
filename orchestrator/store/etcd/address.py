"""The address of a store on etcd: `etcd://[user:password@]host:port,host:port/prefix`."""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import unquote, urlsplit

import msgspec

from orchestrator.store.interface import StoreError


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """*members* are HOST:PORT each; all keys are below *prefix*. *ca*, *cert* and *key* are PEM files, for TLS. *user* is ""
    for an etcd without users."""

    members: tuple[str, ...]
    prefix: str
    ca: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    password: str = ""

    @classmethod
    def parse(cls, url: str, *, ca: str = "", cert: str = "", key: str = "") -> Address:
        """Raises StoreError if *url* is not such an address, or only one of *cert* and *key* is given."""
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        members = tuple(m if ":" in m.rpartition("]")[2] else f"{m}:2379" for m in hosts.split(",") if m)
        if parts.scheme != "etcd" or not members or parts.query or parts.fragment:
            raise StoreError(f"{url!r} is not the address of a store: write etcd://host:port,host:port/prefix")
        if bool(cert) != bool(key):
            raise StoreError("--cert and --key go together: give both or neither")
        return cls(
            members=members,
            prefix=parts.path.strip("/") or "pystack",
            ca=ca,
            cert=cert,
            key=key,
            user=unquote(user),
            password=unquote(password),
        )


def is_local(member: str) -> bool:
    """Whether the host of HOST:PORT is an address of this host."""
    host = member.rpartition(":")[0].strip("[]")
    with contextlib.suppress(OSError, UnicodeError):
        for family, kind, _, _, place in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
                probe.bind(place)
                return True
    return False
