"""Every driver of ours, and the example's, passes the suite that others are asked to pass."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from netplugins import conformance, kernel
from netplugins.bridge import BridgeDriver
from netplugins.driver import Bridge, Driver, Endpoint, HostCapabilities, Network, NetworkState
from netplugins.macvlan import IpvlanDriver, MacvlanDriver
from netplugins.overlay import OverlayDriver

EXAMPLE = Path(__file__).parents[2] / "examples/netplugin/airgap.py"


def example(prefix: str) -> Driver:
    spec = importlib.util.spec_from_file_location("airgap", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Driver = module.AirgapDriver(prefix)
    return made


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (BridgeDriver, {}),
        (OverlayDriver, {}),
        (MacvlanDriver, {}),
        (MacvlanDriver, {"parent": "lan0"}),
        (IpvlanDriver, {"parent": "lan0"}),
        (example, {}),
    ],
    ids=["bridge", "overlay", "macvlan-alone", "macvlan", "ipvlan", "example"],
)
def test_a_driver_conforms(make: Callable[[str], Driver], options: Mapping[str, str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if make is IpvlanDriver and "ipvlan" not in kernel.features():
        pytest.skip("the kernel has no ipvlan (CONFIG_IPVLAN)")
    wrong = {r.case: r.problem for r in conformance.run(make, options) if r.problem}
    assert wrong == {}


class Careless:
    """A driver that forgets the prefix, describes at random, and never misses anything."""

    name = "careless"

    def __init__(self, prefix: str) -> None:
        self.calls = 0

    def missing(self, network: Network, host: HostCapabilities) -> tuple[str, ...]:
        return ()

    def desired_state(self, network: Network, endpoints: Sequence[Endpoint], host: HostCapabilities) -> NetworkState:
        self.calls += 1
        return NetworkState(frozenset({Bridge(f"br{self.calls}", "02:00:00:00:00:01", 1500, ())}))


def test_a_careless_driver_is_found_out() -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    wrong = {r.case for r in conformance.run(Careless, {}) if r.problem}
    assert {
        "describes_the_same_twice",
        "names_links_with_the_prefix",
        "connects_its_endpoints",
        "reports_what_is_missing",
    } <= wrong
