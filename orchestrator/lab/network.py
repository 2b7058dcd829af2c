"""The virtual switch of a lab: a bridge in a namespace of its own, with a port for each machine."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from orchestrator.errors import PystackError
from orchestrator.lab.lab import Lab, Machine

NETWORK4, NETWORK6 = "10.99.0", "fd99::"
OUTSIDE = 254
"""The last number of the address of the machine `outside`, which is the gateway and the name server of the others."""


def run_ip(pid: int, script: str) -> None:
    """Run *script*, commands of ip(8), in the network namespace of *pid*. Raises PystackError."""
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"], input=script, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PystackError(f"the network of the lab cannot be changed: {done.stderr.strip()}")


def wire(lab: Lab, machine: Machine) -> None:
    """Connect *machine* to the switch; both ends of the cable are made in the namespaces of the lab."""
    switch = lab.machines["switch"]
    if machine is switch:
        run_ip(switch.pid, "link add sw0 type bridge\nlink set sw0 up\n")
        return
    number = machine.address.rsplit(".", 1)[1]
    port = f"p-{machine.name}"
    # a machine that is switched on again keeps its address: its neighbours have it in their tables
    mac = f"02:99:00:00:{int(number) >> 8:02x}:{int(number) & 255:02x}"
    # the kernel removes the links of a machine that ended in its own time
    subprocess.run(["nsenter", "-t", str(switch.pid), "-n", "ip", "link", "del", port], capture_output=True, check=False)
    run_ip(
        switch.pid,
        f"link add {port} type veth peer name eth0 address {mac} netns {machine.pid}\nlink set {port} master sw0 up\n",
    )
    run_ip(
        machine.pid,
        f"addr add {machine.address}/24 dev eth0\naddr add {NETWORK6}{int(number):x}/64 dev eth0 nodad\nlink set eth0 up\n",
    )
    if machine.role in ("node", "server"):
        run_ip(machine.pid, f"route add default via {NETWORK4}.{OUTSIDE}\n")


def cut(lab: Lab, machine: Machine) -> None:
    """Disconnect *machine* from the switch."""
    run_ip(lab.machines["switch"].pid, f"link set p-{machine.name} down\n")


def partition(lab: Lab, groups: Sequence[Sequence[str]]) -> None:
    """Machines of one group reach only each other: each group gets a switch of its own. Raises PystackError."""
    there = {m.name for m in lab.machines.values() if m.role != "switch"}
    script = []
    for number, group in enumerate(groups, 1):
        if unknown := set(group) - there:
            raise PystackError(f"lab {lab.name} has no machine {', '.join(sorted(unknown))}")
        script += [f"link add sw{number} type bridge", f"link set sw{number} up"]
        script += [f"link set p-{name} master sw{number}" for name in group]
    heal(lab, sorted(there))
    run_ip(lab.machines["switch"].pid, "\n".join(script) + "\n")


def heal(lab: Lab, names: Sequence[str]) -> None:
    """Connect the machines in *names* to the common switch again."""
    switch = lab.machines["switch"].pid
    run_ip(switch, "".join(f"link set p-{n} master sw0 up\n" for n in names))
    for number in range(1, len(lab.machines) if len(names) > 1 else 1):
        subprocess.run(
            ["nsenter", "-t", str(switch), "-n", "ip", "link", "del", f"sw{number}"], capture_output=True, check=False
        )
