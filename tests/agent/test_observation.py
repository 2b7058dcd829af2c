"""Profiles that report calls, and the smallest one of what was reported."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.isolation import observation, seccomp

DEFAULT = seccomp.default([])
REPORTING = observation.reporting(DEFAULT)
NAMES = sorted(observation.names(DEFAULT))


def test_all_is_reported_but_the_call_that_hands_the_listener_over() -> None:
    reported = {n for rule in REPORTING["syscalls"] if rule["action"] == "SCMP_ACT_NOTIFY" for n in rule["names"]}
    assert reported == observation.names(DEFAULT) - {"write"}
    assert {n for rule in REPORTING["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]} == {"write"}


@given(st.sets(st.sampled_from(NAMES)))
def test_the_smallest_profile_allows_what_was_seen_and_nothing_that_was_not_allowed_before(calls: set[str]) -> None:
    made = observation.smallest(REPORTING, calls)
    assert calls <= observation.names(made) <= observation.names(DEFAULT)
    assert "SCMP_ACT_NOTIFY" not in {rule["action"] for rule in made["syscalls"]}
    assert made["defaultAction"] == "SCMP_ACT_ERRNO"


def test_conditions_on_arguments_stay() -> None:
    made = observation.smallest(REPORTING, {"socket", "clone"})
    kept = [rule for rule in made["syscalls"] if rule.get("args")]
    assert {n for rule in kept for n in rule["names"]} == {"socket", "clone"}
    assert not {"socket", "clone"} & set(made["syscalls"][0]["names"])
    assert {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38} in made["syscalls"]


def test_a_kernel_that_cannot_report_is_named(tmp_path: Path) -> None:
    actions = tmp_path / "actions_avail"
    assert "user_notif" in observation.missing(actions)
    actions.write_text("kill_process allow")
    assert "user_notif" in observation.missing(actions)
    actions.write_text("kill_process user_notif allow\n")
    assert observation.missing(actions) == ""
