"""Schedules in virtual time: no time is lost or run twice, whoever leads, whatever the clock does."""

from __future__ import annotations

import datetime
import random
import zoneinfo

import pytest

from orchestrator.planning.schedules import LATE_S, ScheduleState, decide, next_time
from orchestrator.stackfile.cron import CronError, first_after, last_before, parse_zone
from orchestrator.stackfile.workloads import Schedule

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
LINES = (
    "0 * * * *",
    "30 2 * * *",
    "15 1-3 * * *",
    "*/20 * * * *",
    "0 0 * * mon",
    "0 4 1 * *",
    "59 23 * * *",
    "@daily",
    "0 3 * * sun#1",
    "30 1,2,3 * * *",
)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns")


def local(text: str, zone: datetime.tzinfo = BERLIN, fold: int = 0) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def times(line: str, zone: str, begin: float, end: float) -> list[float]:
    out, at = [], next_time(Schedule(cron=line, timezone=zone), begin)
    while at is not None and at <= end:
        out.append(at)
        at = next_time(Schedule(cron=line, timezone=zone), at)
    return out


DAYLIGHT = [
    # the gap of 29 March 2026, 02:00 to 03:00: at its end, once
    ("30 2 * * *", "2026-03-28T12:00", "2026-03-30T12:00", [("2026-03-29T03:00", 0), ("2026-03-30T02:30", 0)]),
    ("0,30 2 * * *", "2026-03-28T12:00", "2026-03-29T12:00", [("2026-03-29T03:00", 0)]),
    ("0 */2 * * *", "2026-03-29T00:30", "2026-03-29T05:00", [("2026-03-29T04:00", 0)]),
    # the hour that comes twice on 25 October 2026: a line that names it runs once
    ("30 2 * * *", "2026-10-24T12:00", "2026-10-26T12:00", [("2026-10-25T02:30", 0), ("2026-10-26T02:30", 0)]),
    (
        "30 * * * *",
        "2026-10-25T01:00",
        "2026-10-25T04:00",
        [("2026-10-25T01:30", 0), ("2026-10-25T02:30", 0), ("2026-10-25T02:30", 1), ("2026-10-25T03:30", 0)],
    ),
]


@pytest.mark.parametrize(("line", "begin", "end", "wanted"), DAYLIGHT, ids=[f"{d[0]} {d[1][:10]}" for d in DAYLIGHT])
def test_daylight_saving(line: str, begin: str, end: str, wanted: list[tuple[str, int]]) -> None:
    assert times(line, "Europe/Berlin", local(begin), local(end)) == [local(text, fold=fold) for text, fold in wanted]


@pytest.mark.parametrize("zone", ZONES)
def test_times_grow_and_are_found_backwards_too(zone: str) -> None:
    for line in LINES:
        found = times(line, zone, local("2026-03-10T00:00"), local("2026-04-20T00:00"))
        assert found == sorted(set(found))
        assert found
        some = found[len(found) // 2]
        before = last_before(line, parse_zone(zone), datetime.datetime.fromtimestamp(some + 1, datetime.UTC))
        assert before is not None
        assert before.timestamp() == some


@pytest.mark.parametrize(
    "line", ["", "* * * *", "61 * * * *", "a b c d e", "*/0 * * * *", "5-1 * * * *", "\x00 * * * *", "²" * 5]
)
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(CronError):
        first_after(line, datetime.UTC, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "", "Europe", "\x00"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(CronError):
        parse_zone(zone)


HOURLY = Schedule(cron="0 * * * *")
NOON = local("2026-06-01T12:00", datetime.UTC)


def kinds(
    schedule: Schedule, last: float, now: float, *, active: bool = False, paused: bool = False
) -> list[tuple[float, str]]:
    found = decide(schedule, ScheduleState(last=last, paused=paused), now, active=active)
    return [((d.at - NOON) / 3600, d.state) for d in found.due]


def test_what_becomes_of_times_that_passed() -> None:
    late = NOON + 3 * 3600 + LATE_S + 1
    assert kinds(HOURLY, NOON, NOON + 3600) == [(1, "pending")]
    assert kinds(HOURLY, NOON, NOON + 3600 - 0.001) == []
    assert kinds(HOURLY, NOON, late) == [(2, "missed"), (3, "pending")]
    assert kinds(Schedule(cron="0 * * * *", missed="skip"), NOON, late) == [(3, "missed")]
    assert kinds(Schedule(cron="0 * * * *", deadline_s=30), NOON, NOON + 3600 + 31) == [(1, "missed")]
    assert kinds(Schedule(cron="0 * * * *", deadline_s=900), NOON, NOON + 3600 + 800) == [(1, "pending")]
    assert kinds(HOURLY, NOON, late, paused=True) == []
    assert kinds(HOURLY, NOON, NOON + 365 * 86_400 + LATE_S + 1) == [(8759, "missed"), (8760, "pending")]
    assert kinds(HOURLY, NOON + 2 * 86_400, NOON) == []
    assert decide(HOURLY, ScheduleState(last=NOON + 10 * 86_400), NOON, active=False).state.last == NOON  # the clock was wrong


def test_what_becomes_of_a_run_while_another_runs() -> None:
    def made(concurrency: str, active: bool) -> tuple[list[str], bool]:
        schedule = Schedule(cron="0 * * * *", concurrency=concurrency)  # type: ignore[arg-type]
        found = decide(schedule, ScheduleState(last=NOON), NOON + 3600, active=active)
        return [d.state for d in found.due], found.stop

    assert made("forbid", False) == (["pending"], False)
    assert made("forbid", True) == (["skipped"], False)
    assert made("allow", True) == (["pending"], False)
    assert made("replace", True) == (["pending"], True)
    assert made("replace", False) == (["pending"], False)


class World:
    """Schedules, and servers that lead one after the other: what one wrote the next one reads, what it did not write is
    lost."""

    def __init__(self, seed: int, count: int, begin: float) -> None:
        self.random = random.Random(seed)
        self.schedules = [
            Schedule(cron=LINES[n % len(LINES)], timezone=ZONES[n % len(ZONES)], concurrency="allow") for n in range(count)
        ]
        self.written = [ScheduleState(last=begin)] * count
        self.runs: list[dict[float, str]] = [{} for _ in range(count)]
        self.led_at = begin

    def turn(self, number: int, now: float) -> None:
        """A leader looks at one schedule; it may lose the leadership before it has written."""
        found = decide(self.schedules[number], self.written[number], now, active=False)
        if self.random.random() < 0.05:
            return
        for due in found.due:
            assert due.at not in self.runs[number], "a time was run twice"
            self.runs[number][due.at] = due.state
        self.written[number] = found.state

    def live(self, hours: int, *, gap_s: float, step_s: float) -> None:
        """*hours* pass. Servers fail for *gap_s* at the most, and clocks are set by *step_s* at the most."""
        begin = now = self.led_at
        skew = 0.0
        while now < begin + hours * 3600:
            following = [at for s, w in zip(self.schedules, self.written, strict=True) if (at := next_time(s, w.last))]
            now = max(now + 1, min(following) - skew)
            if self.random.random() < 0.1:
                now += self.random.uniform(0, gap_s)
            if self.random.random() < 0.01:
                skew = self.random.uniform(-step_s, step_s)
            for number in range(len(self.schedules)):
                self.turn(number, now + skew)
        for number in range(len(self.schedules)):
            while (
                self.written[number].last < now + skew
                and decide(self.schedules[number], self.written[number], now + skew, active=False).due
            ):
                self.turn(number, now + skew)
        self.end = now + skew


def test_with_servers_that_fail_and_clocks_that_step_each_time_runs_exactly_once() -> None:
    """Steps and gaps stay below what is late and no more."""
    begin = local("2026-03-27T00:00", datetime.UTC)
    world = World(7, 12, begin)
    world.live(120, gap_s=LATE_S / 3, step_s=LATE_S / 4)
    for schedule, runs in zip(world.schedules, world.runs, strict=True):
        wanted = [t for t in times(schedule.cron, schedule.timezone, begin, world.end) if t <= max(runs, default=begin)]
        assert sorted(runs) == wanted
        assert set(runs.values()) <= {"pending"}


def test_after_long_losses_the_newest_time_is_made_up_for() -> None:
    begin = local("2026-10-24T00:00", datetime.UTC)
    world = World(11, 12, begin)
    world.live(120, gap_s=5 * 3600, step_s=2 * 3600)
    for schedule, runs in zip(world.schedules, world.runs, strict=True):
        wanted = times(schedule.cron, schedule.timezone, begin, world.end)
        assert set(runs) <= set(wanted)
        assert not wanted or "pending" in runs.values()
