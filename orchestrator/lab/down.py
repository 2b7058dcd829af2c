"""`lab down`: no process, link, mount, cgroup or file of a lab stays."""

from __future__ import annotations

import os
import shutil
import signal

from agent.contract.processes import start_time
from orchestrator.lab import cgroups, disk
from orchestrator.lab.lab import LABS, Lab, find, locked
from orchestrator.lab.power import power_off


def down(name: str) -> None:
    """Remove the lab called *name*. Raises PystackError if there is none."""
    with locked(name):
        remove(find(name))


def remove(lab: Lab) -> None:
    """Remove *lab*, whole or half made. The caller has locked its name."""
    for relay in lab.relays:
        if start_time(relay.pid) == relay.started:
            os.kill(relay.pid, signal.SIGKILL)
    for machine in reversed(list(lab.machines.values())):
        power_off(lab, machine)
        disk.unmount(machine.directory(lab) / "run")
        disk.unmount(machine.directory(lab))
    cgroups.remove(lab.name)
    shutil.rmtree(lab.directory, ignore_errors=True)
    if LABS.exists() and not any(p for p in LABS.iterdir() if not p.name.endswith(".lock")):
        for path in LABS.iterdir():
            path.unlink(missing_ok=True)
        LABS.rmdir()
