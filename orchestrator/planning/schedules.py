"""Which runs of a schedule are due. Pure: the schedule, what was done so far, and the time go in.

A time is considered once: `last` is the newest one that was, and the server writes it together with the run. So nothing is lost
or doubled when the leader changes, and a clock that is set back repeats nothing. What a leader finds LATE_S after its time at
most is late and no more; older times were missed, because nobody led or the clock was set on.
"""

from __future__ import annotations

import datetime
from typing import Literal

import msgspec

from agent.contract.wire import WireStruct
from orchestrator.stackfile.cron import first_after, last_before, parse_zone
from orchestrator.stackfile.workloads import Schedule

LATE_S = 60.0
AHEAD_S = 86_400.0
"""A `last` that lies further ahead was written under a clock that was wrong: the schedule starts again at the present."""
HORIZON_S = 2 * 86_400.0
"""Of the times that passed longer ago than this, only the newest is looked at: all of them were missed."""


class ScheduleState(WireStruct, frozen=True, kw_only=True):
    """What the store keeps of a schedule: *last* in seconds since the epoch. While it is *paused* its times pass."""

    last: float
    paused: bool = False


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is to be recorded: to begin, or for the record alone. *at* is its time in seconds since the epoch."""

    at: float
    state: Literal["pending", "missed", "skipped"] = "pending"
    reason: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The runs that are due, the oldest first, and the *state* to be written with them. *stop*: those that still run must end
    first."""

    due: tuple[Due, ...] = ()
    state: ScheduleState
    stop: bool = False


def next_time(schedule: Schedule, after: float) -> float | None:
    """The first time of *schedule* later than *after*; None if none is left."""
    moment = datetime.datetime.fromtimestamp(after, datetime.UTC)
    found = first_after(schedule.cron, parse_zone(schedule.timezone), moment)
    return found.timestamp() if found else None


def decide(schedule: Schedule, state: ScheduleState, now: float, *, active: bool) -> Decision:
    """What is due at *now*. *active*: an earlier run has not ended."""
    if state.last > now + AHEAD_S:
        return Decision(state=msgspec.structs.replace(state, last=now))
    times, at = [], next_time(schedule, _from(schedule, state.last, now))
    while at is not None and at <= now:
        times.append(at)
        at = next_time(schedule, at)
    if not times:
        return Decision(state=state)
    then = msgspec.structs.replace(state, last=times[-1])
    if state.paused:
        return Decision(state=then)
    late = [t for t in times if now - t > _patience(schedule)]
    due = [Due(at=t) for t in times if now - t <= _patience(schedule)]
    if late and not due and schedule.missed == "run-once" and _in_time(schedule, now - late[-1]):
        due = [Due(at=late.pop(), reason="made up for: no server led at its time")]
    gone = [Due(at=late[-1], state="missed", reason=_missed(len(late)))] if late else []
    return _concurrent(schedule, [*gone, *due], then, active=active)


def _concurrent(schedule: Schedule, due: list[Due], state: ScheduleState, *, active: bool) -> Decision:
    """*due* as far as runs may be beside each other."""
    begin = [d for d in due if d.state == "pending"]
    if schedule.concurrency == "allow" or not begin or (len(begin) == 1 and not active):
        return Decision(due=tuple(due), state=state)
    chosen = begin[-1] if schedule.concurrency == "replace" else None if active else begin[0]
    why = "the next run took its place" if schedule.concurrency == "replace" else "the run before it had not ended"
    decided = tuple(d if d is chosen or d.state != "pending" else Due(at=d.at, state="skipped", reason=why) for d in due)
    return Decision(due=decided, state=state, stop=active and chosen is not None)


def _from(schedule: Schedule, last: float, now: float) -> float:
    """The time after which the times are looked at: *last*, or shortly before the newest that is older than HORIZON_S."""
    if last >= now - HORIZON_S:
        return last
    moment = datetime.datetime.fromtimestamp(now - HORIZON_S, datetime.UTC)
    found = last_before(schedule.cron, parse_zone(schedule.timezone), moment)
    return max(last, found.timestamp() - 1) if found else now - HORIZON_S


def _patience(schedule: Schedule) -> float:
    return min(LATE_S, schedule.deadline_s or LATE_S)


def _in_time(schedule: Schedule, late_s: float) -> bool:
    return not schedule.deadline_s or late_s <= schedule.deadline_s


def _missed(count: int) -> str:
    return "no server led at its time" + (f", nor at {count - 1} times before it" if count > 1 else "")
