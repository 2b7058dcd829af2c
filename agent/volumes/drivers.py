"""The mount command of each volume driver. Pure.

local      a directory of the node, bounded by `size`; with `type`, `o` and `device` all that mount(8) can mount, as in Docker
nfs        `server` and `path`, or `device: server:/path`; `o` for more options
cifs       `device: //server/share`, `o: username=…,password=…`
glusterfs  `servers` and `volume`, or `device: server:/volume`
sshfs      `sshcmd: user@host:/path` (with `port`, `identity_file`), or no options: then the volume's home node exports it
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.contract.sizes import parse_size
from agent.contract.volume import VOLUME_DRIVERS, VolumeHost
from agent.errors import BadRequestError

PATIENT_S = 15
"""After so long without an answer a server counts as gone: access to its files fails instead of hanging."""


class Mounting(msgspec.Struct, frozen=True):
    """*command* mounts at the path that is appended to it. *needs* is the program, which comes with *package*."""

    command: tuple[str, ...]
    needs: str
    package: str
    after: tuple[str, ...] = ()
    """Arguments that come behind the path."""


def check(name: str, driver: str, options: Mapping[str, str]) -> None:
    """Raises BadRequestError if the driver is unknown, or an option of it is unknown or missing."""
    if driver not in VOLUME_DRIVERS:
        raise BadRequestError(f"volume {name}: driver {driver!r} is not known; there is {', '.join(VOLUME_DRIVERS)}")
    known = VOLUME_DRIVERS[driver]
    if unknown := sorted(set(options) - known):
        raise BadRequestError(f'create {name}: invalid option: "{unknown[0]}"')
    size(name, options)
    mounting(name, driver, options, VolumeHost(node="", address="check"), "")


def size(name: str, options: Mapping[str, str]) -> int:
    """The bytes of `size`; 0 if there is none. Raises BadRequestError."""
    if "size" not in options:
        return 0
    if beside := [key for key in ("type", "device", "o") if options.get(key)]:
        raise BadRequestError(f"volume {name}: driver_opts.size is of a directory of the node: it excludes {beside[0]}")
    try:
        return parse_size(options["size"])
    except ValueError as error:
        raise BadRequestError(f"volume {name}: driver_opts.size {options['size']!r}: {error}") from None


def mounting(name: str, driver: str, options: Mapping[str, str], home: VolumeHost | None, keys: str) -> Mounting | None:
    """The command that mounts the volume; None for a directory of this node. *keys* is the directory of this node's SSH key."""
    extra = options.get("o", "")
    if driver == "local":
        return _local(name, options)
    if driver == "nfs":
        device = options.get("device") or _joined(name, options, "server", "path")
        # softerr: an error after three tries of 5 s each, where a hard mount would wait for ever, unkillable
        return _mount("nfs", device, ",".join(filter(None, ("softerr,timeo=50,retrans=2", extra))))
    if driver == "cifs":
        return _mount("cifs", _given(name, options, "device"), extra)
    if driver == "glusterfs":
        device = options.get("device") or _joined(name, options, "servers", "volume")
        return _mount("glusterfs", device, extra)
    return _sshfs(name, options, home, keys)


def _local(name: str, options: Mapping[str, str]) -> Mounting | None:
    kind, device, extra = options.get("type", ""), options.get("device", ""), options.get("o", "")
    if not kind and not device and not extra:
        return None
    if "bind" in extra.split(","):
        return Mounting(("mount", "--bind", _given(name, options, "device")), "mount", "util-linux")
    if not kind:
        raise BadRequestError(f"volume {name}: driver_opts needs `type` with `device` and `o`")
    if kind == "tmpfs":
        return _mount("tmpfs", "tmpfs", extra)
    address = dict(part.partition("=")[::2] for part in extra.split(",")).get("addr", "")
    if kind.startswith("nfs") and device.startswith(":"):
        device = f"{address}{device}"  # as Docker writes it: the address apart from the path
        extra = ",".join(p for p in extra.split(",") if not p.startswith("addr="))
    return _mount(kind, device or _given(name, options, "device"), extra)


def _mount(kind: str, device: str, options: str) -> Mounting:
    packages = {"nfs": "nfs-common", "nfs4": "nfs-common", "cifs": "cifs-utils", "glusterfs": "glusterfs-client"}
    helper = f"mount.{kind}" if kind in packages else "mount"
    command = ("mount", "-t", kind, *(("-o", options) if options else ()), device)
    return Mounting(command, helper, packages.get(kind, "util-linux"))


def _sshfs(name: str, options: Mapping[str, str], home: VolumeHost | None, keys: str) -> Mounting | None:
    words = [
        f"ServerAliveInterval={PATIENT_S // 3}",
        "ServerAliveCountMax=3",
        f"ConnectTimeout={PATIENT_S}",
        "reconnect",
        "PasswordAuthentication=no",
        "allow_other",
        "dcache_timeout=1",
    ]
    if command := options.get("sshcmd"):
        source = command
        words += [f"IdentityFile={options['identity_file']}"] if "identity_file" in options else []
        port = options.get("port", "22")
    else:
        if home is None:
            return None  # this node is the home
        if not home.address:
            raise BadRequestError(f"volume {name}: its home {home.node} has no SSH server that other nodes could reach")
        host = f"[{home.address}]" if ":" in home.address else home.address
        source, port = f"{home.user}@{host}:/volume", str(home.port)
        words += [
            f"IdentityFile={keys}/id_ed25519",
            f"UserKnownHostsFile={keys}/known_hosts",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            f"HostKeyAlias={home.node}",
            "IdentitiesOnly=yes",
            "sftp_server=/usr/lib/openssh/sftp-server",
        ]  # a command, for servers without the subsystem; ours is run
    words += [options["o"]] if options.get("o") else []
    return Mounting(("sshfs", source), "sshfs", "sshfs", ("-p", port, "-o", ",".join(words)))


def _given(name: str, options: Mapping[str, str], key: str) -> str:
    if not options.get(key):
        raise BadRequestError(f"volume {name}: driver_opts.{key} is missing")
    return options[key]


def _joined(name: str, options: Mapping[str, str], host: str, path: str) -> str:
    return f"{_given(name, options, host)}:{_given(name, options, path)}"
