"""Times as text: what is written is read again, in UTC."""

from __future__ import annotations

import pytest

from agent.contract.times import Digits, seconds_of, timestamp, timestamp_if_set


@pytest.mark.parametrize(
    ("seconds", "digits", "text"),
    [
        (0, "seconds", "1970-01-01T00:00:00Z"),
        (1_767_225_600.25, "milliseconds", "2026-01-01T00:00:00.250Z"),
        (1_767_225_600, "microseconds", "2026-01-01T00:00:00.000000Z"),
    ],
)
def test_a_time_is_written_and_read(seconds: float, digits: Digits, text: str) -> None:
    assert timestamp(seconds, digits) == text
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["1970-01-01T01:00:00+01:00", "1970-01-01T00:00:00", "1970-01-01T00:00:00.000000000Z"])
def test_zones_none_and_nanoseconds(text: str) -> None:
    assert seconds_of(text) == 0


def test_a_time_that_is_not_set_is_empty() -> None:
    assert timestamp_if_set(0) == ""
    assert timestamp_if_set(1) == "1970-01-01T00:00:01Z"


def test_now_is_now() -> None:
    before = seconds_of(timestamp())
    assert before <= seconds_of(timestamp())
