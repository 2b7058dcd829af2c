"""Sizes on disk: how they are written, and disks that cannot keep them. (`tests/kernel/test_sizes.py` has one that can.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import quotas
from agent.contract import sizes
from agent.errors import BadRequestError
from agent.volumes import drivers


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("64m", 64 << 20), ("1.5G", 3 << 29), ("2GiB", 2 << 30), ("1 tb", 1 << 40), ("7K", 7168)]
)
def test_sizes(text: str, size: int) -> None:
    assert sizes.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "m", "5%", "1e9", "1mm"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size is a number"):
        sizes.parse_size(text)


def test_a_disk_without_quotas_says_so() -> None:
    why = quotas.problem(Path("/dev/shm"))
    assert why == "the file system of /dev/shm keeps no sizes: ext4 or xfs mounted with prjquota does"
    with pytest.raises(BadRequestError, match="volume v: the file system of"):
        quotas.require(Path("/dev/shm"), "volume v")
    quotas.forget(Path("/dev/shm"))


def test_the_size_of_a_volume_is_of_a_directory() -> None:
    assert drivers.size("v", {"size": "1g"}) == 1 << 30
    assert drivers.size("v", {}) == 0
    with pytest.raises(BadRequestError, match=r"driver_opts\.size is of a directory of the node: it excludes type"):
        drivers.check("v", "local", {"size": "1g", "type": "tmpfs", "device": "tmpfs"})
    with pytest.raises(BadRequestError, match=r"driver_opts\.size 'much': a size is a number"):
        drivers.check("v", "local", {"size": "much"})
    with pytest.raises(BadRequestError, match="invalid option"):
        drivers.check("v", "nfs", {"size": "1g", "server": "a", "path": "/b"})
