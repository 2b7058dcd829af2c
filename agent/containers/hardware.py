"""The devices that a node can give to containers by name: those of its CDI files, and GPUs that no file describes."""

from __future__ import annotations

from pathlib import Path

from agent.containers import cdi, nvidia
from agent.contract.container import device_kind


def found(rootfs: Path = Path("/")) -> cdi.Named:
    """Every device by its full name (`vendor.com/class=name`), as a container with its root at *rootfs* gets it."""
    out = cdi.read()
    if not any(device_kind(name) == nvidia.KIND for name in out) and (driver := nvidia.describe(rootfs)):
        out |= driver.named()
    return out
