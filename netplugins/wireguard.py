"""The WireGuard device under encrypted overlays: the kernel's, or one of wireguard-go, which is a process.

A node has one device for all of its encrypted networks. Its address in the tunnel is derived from its public key, so
nothing has to assign addresses, and a packet from an address can only come from the owner of that key (cryptokey routing).
Source: wg(8); the cross-platform configuration protocol at wireguard.com/xplatform; RFC 4193 for the addresses.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from netplugins.driver import WireguardDevice, WireguardPeer
from netplugins.errors import NetworkError

PORT = 51871
OVERHEAD = {4: 60, 6: 80}
"""Bytes that WireGuard adds to a packet, by the underlay's version of IP."""
PREFIX = ipaddress.IPv6Network("fd70:7973:7461:636b::/64")
_PROGRAM, _SOCKETS = "wireguard-go", Path("/var/run/wireguard")


def address_of(key: str) -> str:
    """A node's address in the tunnel, by its public *key* in Base64."""
    host = hashlib.sha256(base64.b64decode(key)).digest()[:8]
    return str(PREFIX[int.from_bytes(host, "big")])


def has_program() -> bool:
    """Whether wireguard-go can create devices on this host."""
    return shutil.which(_PROGRAM) is not None and Path("/dev/net/tun").exists()


def start_program(name: str) -> None:
    """Create the device *name* with wireguard-go, whose process ends with the link. Raises NetworkError."""
    command = [_PROGRAM, name]
    # with LOG_LEVEL set it would keep our pipe open until it ends
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip(" │┌└─┐┘")]
        raise NetworkError(f"{_PROGRAM} could not create {name}: {lines[-1] if lines else done.returncode}")


def configure(tunnel: WireguardDevice) -> None:
    """Make port, key and peers of the device equal to *tunnel*; sessions with peers that stay go on. Raises NetworkError,
    or OSError if the key cannot be read."""
    private = Path(tunnel.private_key).read_bytes()
    device = _device(tunnel.name)
    has = device.peers()
    wanted = {p.key: p for p in tunnel.peers}
    gone = [key for key in has if key not in wanted]
    changed = [p for key, p in wanted.items() if has.get(key) != p]
    device.set(private, tunnel.port, gone, changed)


def peers(name: str) -> Mapping[str, WireguardPeer]:
    """The peers of the device *name*, by public key. Raises NetworkError."""
    return _device(name).peers()


def _device(name: str) -> _Program | _InKernel:
    return _Program(name) if (_SOCKETS / f"{name}.sock").exists() else _InKernel(name)


class _Program:
    """A device of wireguard-go, configured over its socket."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _ask(self, request: str) -> list[tuple[str, str]]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            try:
                sock.connect(str(_SOCKETS / f"{self.name}.sock"))
                sock.sendall(request.encode() + b"\n")
                answer = b""
                while not answer.endswith(b"\n\n"):
                    piece = sock.recv(1 << 16)
                    if not piece:
                        break
                    answer += piece
            except OSError as error:
                raise NetworkError(f"{_PROGRAM} of {self.name} does not answer: {error.strerror or error}") from error
        lines = [(k, v) for line in answer.decode().splitlines() if line for k, _, v in [line.partition("=")]]
        if ("errno", "0") not in lines:
            raise NetworkError(f"{_PROGRAM} of {self.name} refused its configuration: {answer.decode().strip()}")
        return lines

    def set(self, private: bytes, port: int, gone: list[str], changed: list[WireguardPeer]) -> None:
        """Set key and port, delete the peers with the keys *gone*, and set those *changed*. Raises NetworkError."""
        lines = ["set=1", f"private_key={private.hex()}", f"listen_port={port}"]
        for key in gone:
            lines += [f"public_key={_hex(key)}", "remove=true"]
        for peer in changed:
            lines += [
                f"public_key={_hex(peer.key)}",
                f"endpoint={_joined(peer.endpoint, peer.port)}",
                "replace_allowed_ips=true",
                f"allowed_ip={peer.address}/128",
            ]
        self._ask("\n".join(lines) + "\n")

    def peers(self) -> dict[str, WireguardPeer]:
        """The peers by public key. Raises NetworkError."""
        out: list[dict[str, str]] = []
        for name, value in self._ask("get=1\n"):
            if name == "public_key":
                out.append({})
            if out:
                out[-1][name] = value
        return {
            key: WireguardPeer(key=key, endpoint=host, port=port, address=entry.get("allowed_ip", "").partition("/")[0])
            for entry in out
            for key in [base64.b64encode(bytes.fromhex(entry["public_key"])).decode()]
            for host, port in [_parted(entry.get("endpoint", ""))]
        }


class _InKernel:
    """A device of the kernel, configured over generic netlink; rarely, hence by pyroute2."""

    def __init__(self, name: str) -> None:
        self.name = name

    def set(self, private: bytes, port: int, gone: list[str], changed: list[WireguardPeer]) -> None:
        """Set key and port, delete the peers with the keys *gone*, and set those *changed*. Raises NetworkError."""
        from pyroute2 import WireGuard  # type: ignore[import-untyped]
        from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

        try:
            with WireGuard() as wireguard:
                wireguard.set(self.name, private_key=base64.b64encode(private).decode(), listen_port=port)
                for key in gone:
                    wireguard.set(self.name, peer={"public_key": key, "remove": True})
                for peer in changed:
                    wireguard.set(
                        self.name,
                        peer={
                            "public_key": peer.key,
                            "endpoint_addr": peer.endpoint,
                            "endpoint_port": peer.port,
                            "replace_allowed_ips": True,
                            "allowed_ips": [f"{peer.address}/128"],
                        },
                    )
        except (NetlinkError, OSError) as error:
            raise NetworkError(f"WireGuard device {self.name} could not be set up: {error}") from error

    def peers(self) -> dict[str, WireguardPeer]:
        """The peers by public key. Raises NetworkError."""
        from pyroute2 import WireGuard
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            with WireGuard() as wireguard:
                answers = wireguard.info(self.name)
        except (NetlinkError, OSError) as error:
            raise NetworkError(f"WireGuard device {self.name} does not answer: {error}") from error
        out = {}
        for answer in answers:
            for entry in answer.get_attr("WGDEVICE_A_PEERS") or ():
                key = entry.get_attr("WGPEER_A_PUBLIC_KEY")
                key = key.decode() if isinstance(key, bytes) else key
                where = entry.get_attr("WGPEER_A_ENDPOINT") or {}
                allowed = entry.get_attr("WGPEER_A_ALLOWEDIPS") or ()
                out[key] = WireguardPeer(
                    key=key,
                    endpoint=str(where.get("addr", "")),
                    port=int(where.get("port", 0)),
                    address=str(allowed[0]["addr"]).partition("/")[0] if allowed else "",
                )
        return out


def _hex(key: str) -> str:
    return base64.b64decode(key).hex()


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parted(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port or 0)
