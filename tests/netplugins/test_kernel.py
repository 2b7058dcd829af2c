"""Making the kernel agree, on the real one: what goes wrong for one network is not paid for by the others."""

from __future__ import annotations

import os

import pytest

from netplugins import conformance
from netplugins.bridge import BridgeDriver
from netplugins.driver import Bridge
from netplugins.errors import NetworkError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def test_after_an_error_no_link_that_was_right_is_made_again() -> None:
    def case(ground: conformance.Testbed) -> None:
        ground.make(0, 1)
        before, inside = ground.own(), conformance.indices(ground)
        refused = Bridge(f"{conformance.PREFIX}bad", "02:00:00:00:00:01", 1, ())  # an MTU that no bridge may have
        with pytest.raises(NetworkError):
            ground.kernel.converge(ground.desired_state(0, 1).objects | {refused})
        ground.make(0, 1)
        assert ground.own() == before
        assert conformance.indices(ground) == inside
        ground.reach(0, 1)

    assert conformance.try_case(case, BridgeDriver, {}) == ""
