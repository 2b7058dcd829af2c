"""NVIDIA's GPUs on a node that has their driver, but not their container toolkit: a CDI description of them.

It is what `nvidia-ctk cdi generate` gives for computing: the GPU's nodes, the driver's libraries and programs. Libraries are
put into a directory that the dynamic linker of the container's image searches anyway, so that no hook rebuilds a cache
(ld.so(8)). Source: NVIDIA Linux driver README, chapter "The /proc Filesystem Interface"; libnvidia-container, src/nvc_info.c.
"""

from __future__ import annotations

import contextlib
import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which

from agent.containers.cdi import CdiDevice, CdiMount, DeviceNode, Edits, Spec

KIND = "nvidia.com/gpu"
CONTROL = ("dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-uvm-tools")
PROGRAMS = ("nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control", "nvidia-cuda-mps-server")
MULTIARCH = f"usr/lib/{platform.machine()}-linux-gnu"
LIBRARIES = (MULTIARCH, f"{MULTIARCH}/nvidia/current", "usr/lib64", "usr/lib", "usr/local/nvidia/lib64")
FOLDERS = ("usr/local/nvidia/bin", "usr/bin", "usr/lib/nvidia/current")
READ_ONLY = ["ro", "nosuid", "nodev", "rbind", "rprivate"]


def describe(rootfs: Path, host: Path = Path("/")) -> Spec | None:
    """The GPUs of *host*, by number in the order of their bus and by UUID, for a container whose root is *rootfs*; None if no
    driver is loaded."""
    try:
        version = re.search(r"Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", (host / "proc/driver/nvidia/version").read_text())
    except OSError:
        return None
    if not version:
        return None
    if host == Path("/") and not Path("/dev/nvidia-uvm").exists() and (maker := which("nvidia-modprobe")):
        # the nodes of a driver that nothing has used since the boot are not there yet
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([maker, "-u", "-c", "0"], check=False, timeout=10, capture_output=True)
    shared = Edits(
        device_nodes=[DeviceNode(path=f"/{n}", permissions="rw") for n in CONTROL if (host / n).exists()],
        mounts=[CdiMount(str(there), f"/{target}", READ_ONLY) for there, target in _files(host, rootfs, version[1])],
    )
    devices, nodes = [], []
    for number, (minor, uuid) in enumerate(_gpus(host)):
        node = DeviceNode(path=f"/dev/nvidia{minor}", permissions="rw")
        nodes.append(node)
        devices += [CdiDevice(name, Edits(device_nodes=[node])) for name in (str(number), uuid) if name]
    return Spec(KIND, [*devices, CdiDevice("all", Edits(device_nodes=nodes))], shared) if nodes else None


def _gpus(host: Path) -> Iterator[tuple[int, str]]:
    """The minor number and the UUID of each GPU."""
    for file in sorted(host.glob("proc/driver/nvidia/gpus/*/information")):
        fields = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        minor = fields.get("Device Minor", "").strip()
        if minor.isdecimal() and (host / f"dev/nvidia{minor}").exists():
            yield int(minor), fields.get("GPU UUID", "").strip()


def _files(host: Path, rootfs: Path, version: str) -> Iterator[tuple[Path, str]]:
    """The files of the driver's *version* in user space, and their targets: a library has every name that programs link by."""
    into = next((f for f in (MULTIARCH, "usr/lib64") if (rootfs / f).is_dir()), "usr/lib")
    taken: set[str] = set()
    for folder in LIBRARIES:
        for link in sorted((host / folder).glob("lib*.so*")):
            if link.name not in taken and link.resolve().name.endswith(f".so.{version}"):
                taken.add(link.name)
                yield link.resolve(), f"{into}/{link.name}"
    for program in PROGRAMS:
        there = next((p for f in FOLDERS if (p := host / f / program).exists()), None)
        if there:
            yield there.resolve(), f"usr/bin/{program}"
