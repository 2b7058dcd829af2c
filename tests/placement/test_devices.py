"""Which of a node's devices a request means."""

from __future__ import annotations

import pytest

from agent.contract.container import DeviceRequest

ACME = ["acme.com/gpu=0", "acme.com/gpu=1", "acme.com/gpu=10", "acme.com/gpu=GPU-1f", "acme.com/gpu=all"]
OTHER = ["other.org/nic=eth", "other.org/nic=ib"]
NVIDIA = ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
CASES = {
    "the first ones, as numbers": (ACME, {"count": 2, "capabilities": ("gpu",)}, ("acme.com/gpu=0", "acme.com/gpu=1")),
    "all, where the vendor says what that is": (ACME, {"count": -1, "capabilities": ("gpu",)}, ("acme.com/gpu=all",)),
    "all, where it does not": (OTHER, {"count": -1, "capabilities": ("nic",)}, tuple(OTHER)),
    "a serial number is the same device once more": (ACME, {"count": 4, "capabilities": ("gpu",)}, None),
    "by ID": (ACME, {"ids": ("GPU-1f",), "capabilities": ("gpu",)}, ("acme.com/gpu=GPU-1f",)),
    "by an ID that is not there": (ACME, {"ids": ("7",), "capabilities": ("gpu",)}, None),
    "by full name": (ACME + OTHER, {"driver": "cdi", "ids": ("other.org/nic=ib",)}, ("other.org/nic=ib",)),
    "by driver": (ACME + NVIDIA, {"driver": "nvidia", "count": 1, "capabilities": ("gpu",)}, ("nvidia.com/gpu=0",)),
    "another driver has it": (ACME, {"driver": "nvidia", "count": 1, "capabilities": ("gpu",)}, None),
    "nobody can do that": (ACME, {"count": 1, "capabilities": ("tpu",)}, None),
    "nothing is there": ([], {"count": -1, "capabilities": ("gpu",)}, None),
}


@pytest.mark.parametrize(("there", "request_", "chosen"), CASES.values(), ids=CASES)
def test_choose(there: list[str], request_: dict[str, object], chosen: tuple[str, ...] | None) -> None:
    assert DeviceRequest(**request_).choose(there) == chosen  # type: ignore[arg-type]
