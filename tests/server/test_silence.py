"""Which nodes are lost: those that are silent while the server itself is well."""

from __future__ import annotations

from orchestrator.server.silence import FLAP_S, FLAPS, HUNG_S, STALL_S, SilenceWatch

AFTER_S = 30.0


def looks(watch: SilenceWatch, begin: float, end: float, silent: dict[str, float | None]) -> frozenset[str]:
    """What the last of many looks says."""
    found: frozenset[str] = frozenset()
    now = begin
    while now <= end:
        found = watch.lost(now, silent)
        now += 0.5
    return found


def test_a_node_is_lost_after_its_time() -> None:
    watch = SilenceWatch(AFTER_S)
    silent: dict[str, float | None] = {"n1": None, "n2": None, "n3": 100.0}
    assert looks(watch, 100, 129.5, silent) == set()
    assert looks(watch, 130, 130, silent) == {"n3"}


def test_after_its_own_isolation_a_server_gives_every_node_its_time_again() -> None:
    """The nodes come back one after the other: those that are last are not lost."""
    watch = SilenceWatch(AFTER_S)
    assert looks(watch, 100, 160, {"n1": None, "n2": 100.0, "n3": 100.0}) == set()
    assert watch.isolated(160)
    assert looks(watch, 160.5, 189, {"n1": None, "n2": None, "n3": 100.0}) == set()
    assert not watch.isolated(189)
    assert looks(watch, 189.5, 191, {"n1": None, "n2": None, "n3": 100.0}) == {"n3"}


def test_a_server_that_was_stopped_has_heard_nobody() -> None:
    watch = SilenceWatch(AFTER_S)
    silent: dict[str, float | None] = {"n1": None, "n2": None, "n3": 100.0}
    looks(watch, 100, 120, silent)
    assert looks(watch, 120 + STALL_S + 60, 209, silent) == set()
    assert looks(watch, 209.5, 216, silent) == {"n3"}


def test_a_node_whose_machine_answers_has_more_time() -> None:
    watch = SilenceWatch(8.0)
    silent: dict[str, float | None] = {"n1": None, "n2": 100.0, "n3": 100.0, "n4": None}
    assert watch.lost(108, silent, {"n2"}) == {"n3"}
    assert watch.lost(112, silent, {"n2"}) == {"n3"}
    assert watch.lost(100 + HUNG_S, silent, {"n2"}) == set()  # it was stopped itself meanwhile
    assert looks(watch, 101 + HUNG_S, 99 + 2 * HUNG_S, silent) == {"n2", "n3"}


def test_a_server_that_begins_to_lead_is_not_cut_off_from_nodes_that_it_did_not_reach_yet() -> None:
    """It followed n3, whose server led before, until 98: what it knows of that node counts from then on."""
    watch, begun = SilenceWatch(8.0), 100.0
    assert looks(watch, begun, begun + 0.5, {"n1": begun, "n2": begun, "n3": 98.0}) == set()
    assert looks(watch, begun + 1, 105.5, {"n1": None, "n2": None, "n3": 98.0}) == set()
    assert looks(watch, 106, 106, {"n1": None, "n2": None, "n3": 98.0}) == {"n3"}


def test_a_server_that_begins_to_lead_and_reaches_nobody_is_cut_off() -> None:
    watch, begun = SilenceWatch(8.0), 100.0
    assert looks(watch, begun, begun + 60, {"n1": None, "n2": begun, "n3": 98.0}) == set()
    assert watch.isolated(begun + 60)


def test_half_of_the_nodes_may_be_lost() -> None:
    watch = SilenceWatch(AFTER_S)
    assert looks(watch, 100, 140, {"n1": None, "n2": 100.0}) == {"n2"}


def test_a_node_that_comes_and_goes_is_said_to_flap() -> None:
    watch, now = SilenceWatch(AFTER_S), 100.0
    for round_ in range(FLAPS):
        assert watch.flapping(now) == set(), round_
        looks(watch, now, now + AFTER_S + 1, {"n1": None, "n2": None, "n3": now})
        now += AFTER_S + 2
        looks(watch, now, now + 2, {"n1": None, "n2": None, "n3": None})
        now += 3
    assert watch.flapping(now) == {"n3"}
    assert watch.flapping(now + FLAP_S) == set()
