"""Limits as texts for control groups, and the disks that paths lie on."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import cgroups
from agent.containers import block_devices, limits
from agent.containers.block_devices import BlockDevice
from agent.contract.container import LIMITS, Container, DeviceRate, adjusted
from agent.contract.sizes import hugepages
from agent.errors import AgentError, BadRequestError

DISK = {"/data": BlockDevice(8, 16)}
GIVEN = {
    "cpus": 0.5,
    "cpu_shares": 512,
    "cpuset": "0",
    "cpuset_mems": "0",
    "cpu_period": 50_000,
    "cpu_quota": 20_000,
    "cpu_burst": 10_000,
    "cpu_rt_period": 500_000,
    "cpu_rt_runtime": 1000,
    "memory": 64 << 20,
    "memory_swap": 96 << 20,
    "memory_reservation": 32 << 20,
    "swappiness": 7,
    "pids": 9,
    "blkio_weight": 300,
    "blkio": tuple(DeviceRate(what=what, path="/data", rate=70) for what in ("weight", *limits.THROTTLES)),
    "hugepages": (("2MB", "4m"),),
}
ONLY_V1 = {"cpu_rt_period", "cpu_rt_runtime", "swappiness"}


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("field", LIMITS)
def test_each_limit_has_a_text_and_one_that_takes_it_away(field: str, v2: bool) -> None:
    base = {"cpus": {}, "memory_swap": {"memory": 64 << 20}}.get(field, {})
    plain, limited = Container(image="i", **base), Container(image="i", **base, **{field: GIVEN[field]})  # type: ignore[arg-type]
    assert adjusted(plain, limited)
    before, after = (limits.values(c, DISK, v2=v2) for c in (plain, limited))
    given, freed = limits.changes(before, after), limits.changes(after, before)
    assert bool(given) == (not v2 or field not in ONLY_V1)
    assert given.keys() == freed.keys()
    assert all(given[file] != freed[file] for file in given)


def test_texts_are_those_of_the_kernel() -> None:
    whole = Container(image="i", **GIVEN)  # type: ignore[arg-type]
    one, two = (limits.values(whole, DISK, v2=v2) for v2 in (False, True))
    assert one["memory", "memory.memsw.limit_in_bytes", ""] == str(96 << 20)
    assert two["memory", "memory.swap.max", ""] == str(32 << 20)
    assert two["cpu", "cpu.max", ""] == "20000 50000"
    assert two["io", "io.max", "8:16 rbps"] == "8:16 rbps=70"
    assert one["blkio", "blkio.throttle.write_iops_device", "8:16"] == "8:16 70"
    assert limits.changes(two, {})["io", "io.max", "8:16 rbps"] == "8:16 rbps=max"
    assert {file[0] for file in limits.left_to_us(whole, DISK, v2=True)} == {"io", "hugetlb", "cpu"}


def test_limits_that_hang_on_each_other_are_written_in_the_order_that_the_kernel_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "memory" / "g"
    group.mkdir(parents=True)
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "unified", lambda: False)
    (group / "memory.limit_in_bytes").touch()
    assert list(limits.write("g", {("memory", "memory.limit_in_bytes", ""): "5"})) == []
    assert (group / "memory.limit_in_bytes").read_text() == "5\n"
    assert "hugetlb.2MB.limit_in_bytes is not there" in next(
        limits.write("g", {("hugetlb", "hugetlb.2MB.limit_in_bytes", ""): "4096"})
    )
    (group / "memory.folder").mkdir()
    with pytest.raises(AgentError, match=r"the kernel refuses memory\.folder: 1: Is a directory"):
        list(limits.write("g", {("memory", "memory.folder", ""): "1"}))


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [((("2MB", "64m"),), (("2MB", str(64 << 20)),)), ((("1g", "2G"), ("64k", "0")), (("1GB", str(2 << 30)), ("64KB", "0")))],
)
def test_huge_pages_are_named_as_the_kernel_names_them(pairs: tuple[tuple[str, str], ...], expected: object) -> None:
    assert hugepages(pairs) == expected


@pytest.mark.parametrize(("page", "limit"), [("3MB", "6m"), ("2MB", "3m"), ("x", "1m"), ("2MB", "much")])
def test_what_are_no_huge_pages_is_refused(page: str, limit: str) -> None:
    with pytest.raises(ValueError, match=r"huge pages|whole pages|size is"):
        hugepages(((page, limit),))


@pytest.mark.parametrize(
    ("path", "error"), [("/dev/nope", "stat /dev/nope: no such file"), ("/dev/null", "not a block device")]
)
def test_what_is_no_disk_is_refused(path: str, error: str) -> None:
    with pytest.raises(BadRequestError, match=error):
        block_devices.at(path)


def test_what_is_in_memory_lies_on_no_disk() -> None:
    with pytest.raises(BadRequestError, match=r"this is on a file system of type .*, which has no block device"):
        block_devices.under(Path("/proc"), "this")


def test_a_partition_is_limited_by_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "devices" / "vda"
    (disk / "vda1").mkdir(parents=True)
    (disk / "dev").write_text("254:0\n")
    (disk / "vda1" / "partition").write_text("1\n")
    monkeypatch.setattr(block_devices, "SYSFS", tmp_path)
    (tmp_path / "254:1").symlink_to(disk / "vda1")
    (tmp_path / "254:0").symlink_to(disk)
    assert block_devices.whole(BlockDevice(254, 1)) == BlockDevice(254, 0)
    assert block_devices.whole(BlockDevice(254, 0)) == BlockDevice(254, 0)
