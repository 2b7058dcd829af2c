"""The description of NVIDIA's GPUs from a driver's files, laid out as driver 580 had them on a host with an H100."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from agent.containers.nvidia import describe

VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (x@)  \nGCC version:  gcc 15\n"
GPU = "Model: \t\t NVIDIA H100 80GB HBM3\nGPU UUID: \t GPU-{uuid}\nBus Location: \t 0000:0{n}:00.0\nDevice Minor: \t {minor}\n"
MULTIARCH = f"usr/lib/{platform.machine()}-linux-gnu"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    files = {"proc/driver/nvidia/version": VERSION, "usr/bin/nvidia-smi": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""}
    for n, minor in ((1, 1), (2, 0)):  # the kernel's numbers are not those of the bus
        files |= {
            f"proc/driver/nvidia/gpus/0000:0{n}:00.0/information": GPU.format(uuid=f"{n}{n}", n=n, minor=minor),
            f"dev/nvidia{minor}": "",
        }
    libraries = ("libcuda.so.580.159.04", "libnvidia-ml.so.580.159.04", "libcuda.so.470.1", "libz.so.1")
    files |= {f"{MULTIARCH}/{library}": "" for library in libraries}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for link, target in (("libcuda.so.1", "libcuda.so.580.159.04"), ("libcuda.so", "libcuda.so.1")):
        (root / MULTIARCH / link).symlink_to(target)
    return root


@pytest.mark.parametrize(
    ("folders", "into"),
    [
        ((MULTIARCH, "usr/lib64"), MULTIARCH),
        (("usr/lib64", "usr/lib"), "usr/lib64"),
        (("usr/lib",), "usr/lib"),
    ],
)
def test_what_a_driver_brought(host: Path, tmp_path: Path, folders: tuple[str, ...], into: str) -> None:
    rootfs = tmp_path / "image"
    for folder in folders:
        (rootfs / folder).mkdir(parents=True)
    found = describe(rootfs, host)
    assert found is not None
    nodes = {d.name: [n.path for n in d.container_edits.device_nodes] for d in found.devices}
    assert nodes == {
        "0": ["/dev/nvidia1"],
        "GPU-11": ["/dev/nvidia1"],
        "1": ["/dev/nvidia0"],
        "GPU-22": ["/dev/nvidia0"],
        "all": ["/dev/nvidia1", "/dev/nvidia0"],
    }
    shared = found.container_edits
    assert [n.path for n in shared.device_nodes] == ["/dev/nvidiactl", "/dev/nvidia-uvm"]
    lib = host / MULTIARCH
    cuda, ml = str(lib / "libcuda.so.580.159.04"), str(lib / "libnvidia-ml.so.580.159.04")
    assert [(m.host_path, m.container_path) for m in shared.mounts] == [
        (cuda, f"/{into}/libcuda.so"),
        (cuda, f"/{into}/libcuda.so.1"),
        (cuda, f"/{into}/libcuda.so.580.159.04"),
        (ml, f"/{into}/libnvidia-ml.so.580.159.04"),
        (str(host / "usr/bin/nvidia-smi"), "/usr/bin/nvidia-smi"),
    ]
    assert all("ro" in m.options for m in shared.mounts)


def test_no_driver_no_gpu(tmp_path: Path) -> None:
    assert describe(tmp_path, tmp_path) is None
