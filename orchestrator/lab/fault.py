"""`lab fault`: makes machines of a lab fail, and ends that again."""

from __future__ import annotations

import subprocess
import time

from orchestrator.errors import PystackError
from orchestrator.lab import disk, network
from orchestrator.lab.cluster import leader, wait_for_server
from orchestrator.lab.lab import Lab, Machine, enter
from orchestrator.lab.power import boot, power_off

RESTART_S = 10.0
"""How long a server or an agent that was killed may take to run again."""
SIGNALS = {"kill": "KILL", "pause": "STOP", "resume": "CONT"}
KINDS = ("cut", "heal", "partition", *SIGNALS, "crash", "boot", "fill-disk")


def fault(lab: Lab, kind: str, target: str = "", *more: str) -> str:
    """Do what *kind*, one of KINDS, says to the machine *target*; without a target, `heal` heals all machines.

    The target `leader` is the machine whose server leads; `kill` and `pause` are then for its server. Returns the name of the
    target. Raises PystackError."""
    if target == "leader":
        found = leader(lab)
        if found is None:
            raise PystackError(f"lab {lab.name}: no server leads now: name a machine, or wait until one does")
        target = found.name
        if kind in ("kill", "pause"):
            more = more or ("server",)
    if kind == "heal":
        _heal(lab, target)
    elif kind == "partition":
        network.partition(lab, [part.split(",") for part in (target, *more)])
    elif kind in KINDS:
        _fault(lab, kind, lab.machine(target), more)
    else:
        raise PystackError(f"fault {kind!r} is not known: use {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    return target


def _heal(lab: Lab, target: str) -> None:
    running = [m.name for m in lab.machines.values() if m.role != "switch" and m.alive()]
    names = [target] if target else running
    for name in names:
        disk.free(lab.machine(name).directory(lab))
    network.heal(lab, names)


def _fault(lab: Lab, kind: str, machine: Machine, more: tuple[str, ...]) -> None:
    if kind == "cut":
        network.cut(lab, machine)
    elif kind in SIGNALS:
        _signal(lab, machine, SIGNALS[kind], more[0] if more else "agent")
    elif kind == "crash":
        power_off(lab, machine)
        lab.save()
    elif kind == "boot":
        if machine.alive():
            raise PystackError(f"machine {machine.name} is running already")
        boot(lab, machine)
        if machine.role == "server":
            wait_for_server(lab)
    else:
        if more and not more[0].isdecimal():
            raise PystackError(f"fill-disk {machine.name} {more[0]}: the bytes to leave free are a whole number, such as 4096")
        disk.fill(machine.directory(lab), int(more[0]) if more else 0)


def _signal(lab: Lab, machine: Machine, name: str, process: str) -> None:
    """Send signal *name* to a *process* of *machine*: agent, server or sshd."""
    if process not in ("agent", "server", "sshd"):
        raise PystackError(f"{process!r} is not a process of a machine: use agent, server or sshd")
    if process in ("agent", "server"):  # a server and its node's agent are one process
        process = {"server": "server", "node": "agent"}.get(machine.role, process)
    path = machine.directory(lab) / "run" / f"{process}.pid"
    if not path.exists():
        raise PystackError(f"machine {machine.name} has no {process}")
    words = [*enter(lab, machine.name), "kill", f"-{name}"]
    deadline = time.monotonic() + RESTART_S
    while subprocess.run([*words, path.read_text()], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:  # one that was killed a moment ago is started again
            raise PystackError(f"machine {machine.name}: its {process} does not run")
        time.sleep(0.02)
