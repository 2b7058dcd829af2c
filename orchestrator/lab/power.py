"""Switches machines of a lab on and off."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from agent.contract.processes import start_time
from orchestrator.errors import PystackError
from orchestrator.lab import cgroups, disk
from orchestrator.lab.lab import Lab, Machine
from orchestrator.lab.network import NETWORK4, OUTSIDE, wire


def insert_disk(lab: Lab, machine: Machine) -> None:
    """Mount the machine's own disk, if the lab's nodes have disks."""
    if lab.disk_size and machine.role in ("server", "node"):
        directory = machine.directory(lab)
        directory.mkdir(exist_ok=True)
        disk.insert(lab.directory / f"{machine.name}.disk", lab.disk_size, directory)


def boot(lab: Lab, machine: Machine) -> None:
    """Switch *machine* on, connect it, and save the lab. Raises PystackError."""
    directory = machine.directory(lab)
    directory.mkdir(exist_ok=True)
    insert_disk(lab, machine)
    (directory / "wired").unlink(missing_ok=True)
    _fresh_run(directory / "run")
    cgroups.create(lab.name, machine.name)
    spec = directory / "machine.json"
    spec.write_text(
        json.dumps(
            {
                "lab": lab.name,
                "name": machine.name,
                "role": machine.role,
                "directory": str(directory),
                "address": machine.address,
                "nameserver": f"{NETWORK4}.{OUTSIDE}",
                "members": {m.name: m.address for m in lab.servers} if lab.etcd else {},
                "password": lab.password,
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-E", "-s", "-m", "orchestrator.lab.machine", str(spec)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    answer: dict[str, object] = json.loads(done.stdout) if done.stdout else {"error": done.stderr.strip().splitlines()[-1:]}
    if "error" in answer:
        raise PystackError(f"machine {machine.name} of lab {lab.name} did not start: {answer['error']}")
    machine.pid = int(str(answer["pid"]))
    machine.started = start_time(machine.pid)
    lab.save()
    wire(lab, machine)
    (directory / "wired").touch()


def _fresh_run(run: Path) -> None:
    """Mount an empty tmpfs, as /run is on a machine that has just been switched on."""
    disk.unmount(run)
    run.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(run)], check=True)


def power_off(lab: Lab, machine: Machine) -> None:
    """Kill the first process of *machine*: the kernel then kills all others (pid_namespaces(7)). One that is off stays off."""
    if machine.alive():
        fd = os.pidfd_open(machine.pid)
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            cgroups.thaw(lab.name, machine.name)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(10_000)
        finally:
            os.close(fd)
    machine.pid = 0
