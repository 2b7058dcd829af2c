"""The way back from a lost quorum: one member that is left becomes a cluster of its own.

What it has not received is lost: changes that the others had acknowledged, if it lagged behind. So the member that has most is
the one to go on with. Source: etcd, disaster recovery; etcd flag --force-new-cluster.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from orchestrator.errors import PystackError
from orchestrator.managed import process
from orchestrator.managed.gateway import Gateway, GatewayError
from orchestrator.managed.settings import MemberFolder, MemberSettings


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the members before one of them goes on alone. *index* is how many changes this host's has, *written*
    when it last wrote; *ahead* are others that answer and have more, *silent* those that do not answer."""

    settings: MemberSettings
    index: int
    written: datetime.datetime
    ahead: Mapping[str, int]
    silent: tuple[str, ...]

    def words(self) -> str:
        """The same for a user."""
        lines = [
            f"{self.settings.name} has {self.index} changes, and last wrote at {self.written:%Y-%m-%d %H:%M:%S} UTC. What the "
            "others acknowledged after that is lost.",
        ]
        if self.silent:
            lines.append(f"Not to be asked, and to be kept off from now on: {', '.join(self.silent)}.")
        lines += [f"{name} has {more} changes more: recover there instead." for name, more in self.ahead.items()]
        return "\n".join(lines)


def assess(folder: MemberFolder, control_socket: Path) -> Loss:
    """What would be lost. Raises PystackError where there is nothing to recover, or this host's server runs."""
    settings = folder.settings()
    if settings is None:
        raise PystackError(
            "this host has no member of an etcd that pystack manages; for one of your own: etcd's guide for disaster recovery"
        )
    if _answers(control_socket):
        raise PystackError("this host's server runs, and would start the member again: stop it first")
    written = _last_write(folder)  # a start writes, too
    process.start(folder, settings)
    process.wait(folder, settings, quorum=False)
    gateway = Gateway(folder, settings.address)
    if gateway.has_quorum():
        raise PystackError("etcd has a quorum: nothing is to be recovered (`pystack server ls`, `pystack server rm`)")
    index, ahead, silent = gateway.status().index, {}, []
    for name, address in settings.members.items():
        if address != settings.address:
            try:
                more = Gateway(folder, address).status().index - index
            except GatewayError:
                silent.append(name)
            else:
                if more > 0:
                    ahead[name] = more
    return Loss(settings=settings, index=index, written=written, ahead=ahead, silent=tuple(silent))


def _last_write(folder: MemberFolder) -> datetime.datetime:
    """Raises PystackError."""
    try:
        return datetime.datetime.fromtimestamp((folder.data / "member/snap/db").stat().st_mtime, datetime.UTC)
    except OSError as error:
        raise PystackError(f"{error.filename}: {error.strerror}: this host's member has nothing to go on with") from None


def force_new(folder: MemberFolder, settings: MemberSettings) -> None:
    """Make this host's member a cluster of its own. It can be cut off anywhere, and done again. Raises PystackError."""
    alone = msgspec.structs.replace(settings, members={settings.name: settings.address}, joining=False)
    process.stop(folder)
    forced = msgspec.structs.replace(alone, forced=True)
    process.start(folder, forced)
    process.wait(folder, forced)
    folder.write(alone)
    process.stop(folder)  # started again it must not force anything
    process.start(folder, alone)
    process.wait(folder, alone)


def _answers(control_socket: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(2.0)
        sock.connect(str(control_socket))
        return True
    return False
