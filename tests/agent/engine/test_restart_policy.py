"""Whether and when a container that ended starts again."""

from __future__ import annotations

import msgspec
import pytest

from agent.contract.container import Container
from agent.engine import restart_policy
from agent.engine.records import Record


def record(policy: str, *, limit: int = 0, attempts: int = 0, stopped: bool = False, auto_remove: bool = False) -> Record:
    container = Container(image="x", restart=policy, restart_max=limit)
    return Record(
        id="c", name="c", container=container, created="", attempts=attempts, stopped=stopped, auto_remove=auto_remove
    )


CASES = {
    "no policy": (record("no"), 1, False),
    "always, after success": (record("always"), 0, True),
    "unless-stopped, after success": (record("unless-stopped"), 0, True),
    "any (of a deploy section), after success": (record("any"), 0, True),
    "on-failure, after success": (record("on-failure"), 0, False),
    "on-failure, after a failure": (record("on-failure"), 137, True),
    "on-failure, as often as it may": (record("on-failure", limit=2, attempts=1), 1, True),
    "on-failure, once too often": (record("on-failure", limit=2, attempts=2), 1, False),
    "stopped by order": (record("always", stopped=True), 0, False),
    "to be removed when it ends": (record("always", auto_remove=True), 0, False),
}


@pytest.mark.parametrize(("ended", "code", "expected"), CASES.values(), ids=CASES)
def test_a_container_is_started_again(ended: Record, code: int, expected: bool) -> None:
    assert restart_policy.restarts(ended, code) is expected


def test_the_delay_doubles_up_to_a_minute_unless_the_container_says_how_long() -> None:
    plain = Container(image="x")
    assert [restart_policy.delay_s(plain, n) for n in (0, 1, 2, 9, 10, 99)] == [0.1, 0.2, 0.4, 51.2, 60.0, 60.0]
    assert restart_policy.delay_s(Container(image="x", restart_delay_s=5.0), 9) == 5.0


def test_a_container_that_ran_long_enough_begins_anew() -> None:
    assert restart_policy.quick_restarts(Container(image="x"), 7, 9.9) == 7
    assert restart_policy.quick_restarts(Container(image="x"), 7, 10.0) == 0
    assert restart_policy.quick_restarts(Container(image="x", restart_window_s=60.0), 7, 59.0) == 7


def test_the_limit_begins_anew_after_a_start_that_lasted() -> None:
    often = record("on-failure", limit=2, attempts=2)
    window = msgspec.structs.replace(
        often, container=Container(image="x", restart="on-failure", restart_max=2, restart_window_s=5.0)
    )
    assert not restart_policy.restarts(often, 1, 3600.0)
    assert not restart_policy.restarts(window, 1, 4.9)
    assert restart_policy.restarts(window, 1, 5.0)
