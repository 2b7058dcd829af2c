"""Sizes of writable layers and volumes: kept where the disk has project quotas, refused with the reason elsewhere.

`make test-vm` has a kernel with quotas: `bash tests/vm/run tests/kernel/test_sizes.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Pystack, Stack, cluster_of

pytestmark = pytest.mark.kernel
SIZED = """
services:
  layer: {image: busybox, command: sleep 1000, stop_grace_period: 0s, storage_opt: {size: 16m}}
  volume: {image: busybox, command: sleep 1000, stop_grace_period: 0s, volumes: ["data:/data"]}
  apart: {image: busybox, command: sleep 1000, stop_grace_period: 0s, storage_opt: {size: 16m}, userns_mode: auto}
volumes: {data: {driver_opts: {size: 24m}}}
"""
FILL = "dd if=/dev/zero of={}/fill bs=64k count=2000 2>/dev/null; wc -c < {}/fill"


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(1, disk="256m") as pystack:
        yield pystack


def has_quotas(lab: Pystack) -> bool:
    return "project-quota" in lab("node", "inspect", "n1").stdout


def test_a_layer_and_a_volume_hold_what_they_may_and_no_more(lab: Pystack, stack: Stack) -> None:
    if not has_quotas(lab):
        pytest.skip("this kernel has no project quotas (CONFIG_QFMT_V2)")
    stack.up(SIZED)
    for service, place, size in (("layer", "/srv", 16), ("volume", "/data", 24), ("apart", "/srv", 16)):
        written = int(stack.exec(service, "sh", "-c", FILL.format(place, place)))
        assert 0.95 * size < written / (1 << 20) <= size, service
    assert stack.exec("volume", "df", "-m", "/data").split()[-5] == "24"
    assert stack.run("exec", "-T", "layer", "cp", "/bin/busybox", "/srv/more", check=False).returncode != 0
    stack.exec("layer", "rm", "/srv/fill")
    stack.exec("layer", "cp", "/bin/busybox", "/srv/more")
    stack.run("restart", "layer", "volume")
    assert stack.run("exec", "-T", "volume", "cp", "/bin/busybox", "/data/more", check=False).returncode != 0
    assert '"StorageOpt"' in lab("container", "inspect", f"{stack.name}-layer-1").stdout
    stack.down()
    stack.up(SIZED)
    assert 0.95 * 24 < int(stack.exec("volume", "sh", "-c", FILL.format("/data", "/data"))) / (1 << 20) <= 24


def test_a_node_without_quotas_takes_no_size_and_says_why(lab: Pystack, stack: Stack) -> None:
    if has_quotas(lab):
        pytest.skip("this kernel has project quotas")
    done = stack.up(SIZED, check=False)
    assert done.returncode == 1
    assert "the size of the writable layer needs ext4 or xfs mounted with prjquota, which its disk is not" in done.stderr
    assert "the size of volume data needs ext4 or xfs mounted with prjquota" in done.stderr
    assert "prjquota" in stack.run("plan", check=False).stderr
    made = lab("volume", "create", "-d", "local", "-o", "size=1g", "sized", check=False)
    assert made.returncode == 1
    assert "driver_opts.size: the file system of" in made.stderr
