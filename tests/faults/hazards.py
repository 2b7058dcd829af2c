"""What fails in a cell of the fault matrix, and how that ends."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable
from typing import NamedTuple

from tests.conftest import eventually
from tests.faults.machines import AGENT, SERVERS, Machines

NFT = "table inet fault {{ chain {hook} {{ type filter hook {hook} priority -300; {what} drop; }}; }}"
LOSS = "numgen random mod 100 < 30"
SSH_SESSION = ("-f", "^sshd(-session)?: root")


class Where(NamedTuple):
    """The nodes of the server that leads and of one that waits, and a node that has an agent alone."""

    leader: str
    waiter: str
    agent: str


def places(machines: Machines) -> Where:
    """Raises AssertionError where no server leads for long."""

    def leads() -> str:
        try:
            return machines.leader()
        except OSError as error:
            raise AssertionError(error) from None

    leader = eventually(leads, 20)
    return Where(leader, next(n for n in SERVERS if n != leader), AGENT)


class Hazard(NamedTuple):
    """*begin* makes it fail and *end* ends that. One that is *brief* has ended as soon as it began: nothing is waited for."""

    begin: Callable[[Machines, Where], object]
    end: Callable[[Machines, Where], object]
    brief: bool = False


def _nothing(machines: Machines, where: Where) -> None:
    del machines, where


def _killed(role: str, *pattern: str) -> Hazard:
    return Hazard(lambda m, w: m.signal(getattr(w, role), "KILL", pattern), _nothing, brief=True)


def _hangs(role: str, *pattern: str) -> Hazard:
    return Hazard(
        lambda m, w: m.signal(getattr(w, role), "STOP", pattern), lambda m, w: m.signal(getattr(w, role), "CONT", pattern)
    )


def _process(role: str, name: str, kind: str, end: str = "") -> Hazard:
    """What `lab fault` does to a process that it knows."""
    begin = lambda m, w: m.fault(kind, getattr(w, role), name)  # noqa: E731
    return Hazard(begin, (lambda m, w: m.fault(end, getattr(w, role), name)) if end else _nothing, brief=not end)


def _machine(role: str, kind: str, end: str) -> Hazard:
    return Hazard(lambda m, w: m.fault(kind, getattr(w, role)), lambda m, w: m.fault(end, getattr(w, role)))


def _drops(role: str, what: str, *hooks: str) -> Hazard:
    """Packets of the machine that *what*, an expression of nft(8), fits are dropped at *hooks*."""

    def begin(machines: Machines, where: Where) -> None:
        for hook in hooks:
            machines.run(getattr(where, role), "nft", NFT.format(hook=hook, what=what), check=True)

    return Hazard(begin, lambda m, w: m.run(getattr(w, role), "nft", "delete", "table", "inet", "fault"))


def _without_inodes(machines: Machines, where: Where) -> None:
    folder = machines.folder / where.agent / ".files"
    folder.mkdir()
    with contextlib.suppress(OSError) as _:
        for number in range(1 << 20):
            try:
                (folder / str(number)).touch()
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return


def _with_inodes(machines: Machines, where: Where) -> None:
    shutil.rmtree(machines.folder / where.agent / ".files")


def _descriptors(role: str, name: str) -> Hazard:
    """The process may open no file more than it has open."""
    pid = f'p=$(cat "$PYSTACK_RUN/{name}.pid")'
    limit = "prlimit --pid $p --nofile="

    def shell(machines: Machines, where: Where, script: str) -> None:
        node = getattr(where, role)
        machines.run(node, "sh", "-c", f"PYSTACK_RUN={machines.folder}/{node}/run; {pid}; {script}")

    return Hazard(
        lambda m, w: shell(m, w, f"{limit}$(ls /proc/$p/fd | wc -l):"),
        lambda m, w: shell(m, w, f"{limit}$(prlimit --pid $p --nofile --output HARD --noheadings):"),
    )


def _both_members(number: str) -> Callable[[Machines, Where], None]:
    def signal(machines: Machines, where: Where) -> None:
        for node in (where.leader, where.waiter):
            machines.signal(node, number, ("-x", "etcd"))

    return signal


CALM = Hazard(_nothing, _nothing, brief=True)
HAZARDS: dict[str, Hazard] = {
    "leading server killed": _process("leader", "server", "kill"),
    "leading server hangs": _process("leader", "server", "pause", "resume"),
    "waiting server killed": _process("waiter", "server", "kill"),
    "waiting server hangs": _process("waiter", "server", "pause", "resume"),
    "agent killed": _process("agent", "agent", "kill"),
    "agent hangs": _process("agent", "agent", "pause", "resume"),
    "etcd member beside the leader killed": _killed("leader", "-x", "etcd"),
    "etcd member beside the leader hangs": _hangs("leader", "-x", "etcd"),
    "another etcd member killed": _killed("waiter", "-x", "etcd"),
    "another etcd member hangs": _hangs("waiter", "-x", "etcd"),
    "two etcd members of three hang": Hazard(_both_members("STOP"), _both_members("CONT")),
    "SSH server killed": _process("agent", "sshd", "kill"),
    "SSH server hangs": _process("agent", "sshd", "pause", "resume"),
    "SSH connection killed": _killed("agent", *SSH_SESSION),
    "SSH connection hangs": _hangs("agent", *SSH_SESSION),
    "conmon killed": _killed("agent", "-x", "conmon"),
    "conmon hangs": _hangs("agent", "-x", "conmon"),
    "containers killed": _killed("agent", "-f", "^(httpd|sleep)"),
    "data path killed": _killed("agent", "-f", "netplugins.dataplane"),
    "data path hangs": _hangs("agent", "-f", "netplugins.dataplane"),
    "data path beside the leader killed": _killed("leader", "-f", "netplugins.dataplane"),
    "power of a node cut": _machine("agent", "crash", "boot"),
    "power of a waiting server's machine cut": _machine("waiter", "crash", "boot"),
    "power of the leader's machine cut": _machine("leader", "crash", "boot"),
    "a node cut off": _machine("agent", "cut", "heal"),
    "a waiting server's machine cut off": _machine("waiter", "cut", "heal"),
    "the leader's machine cut off": _machine("leader", "cut", "heal"),
    "a node hears nobody": _drops("agent", "iifname eth0", "input"),
    "nobody hears a node": _drops("agent", "oifname eth0", "output"),
    "the leader's machine hears nobody": _drops("leader", "iifname eth0", "input"),
    "nobody hears the leader's machine": _drops("leader", "oifname eth0", "output"),
    "a node loses 30 % of packets both ways": _drops("agent", LOSS, "input", "output"),
    "the leader's machine loses 30 % both ways": _drops("leader", LOSS, "input", "output"),
    "a node's disk full": _machine("agent", "fill-disk", "heal"),
    "the disk of the leader and its etcd full": _machine("leader", "fill-disk", "heal"),
    "a node's disk without inodes": Hazard(_without_inodes, _with_inodes),
    "an agent without descriptors": _descriptors("agent", "agent"),
    "the leader without descriptors": _descriptors("leader", "server"),
}
