"""The times that a cron line stands for. Pure: the same line, zone and time give the same answer.

Lines are read by cronsim, which follows Debian's cron: five fields (six where the first is seconds), names of months and days,
`L`, `LW` and `#`. Daylight saving is as there too: a line that names an hour runs once a day, at the first moment after a gap
that swallowed its time and in the first of two equal hours; one with `*` for its hour or minute runs as the clock goes.
Source: cron(8) of Debian; the IANA time zone database.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cronsim import CronSim

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class CronError(ValueError):
    """A line or a zone that cannot be read; *fix* says what to write."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


def parse_zone(name: str) -> datetime.tzinfo:
    """The zone *name* of the IANA database. Raises CronError."""
    if name == "UTC":
        return datetime.UTC
    import zoneinfo  # here, as cronsim below: 0.3 MB that a server without schedules saves

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise CronError(f"there is no time zone {name[:60]!r}", "write UTC, or a name such as Europe/Berlin") from None


def first_after(line: str, zone: datetime.tzinfo, after: datetime.datetime) -> datetime.datetime | None:
    """The first time of *line* later than *after*, in UTC; None if it never comes. Raises CronError."""
    for found in _times(line, after.astimezone(zone)):
        moment = found.astimezone(datetime.UTC)
        if moment > after:  # two times in a gap are one, and the second of two equal hours comes before the first is over
            return moment
    return None


def last_before(line: str, zone: datetime.tzinfo, before: datetime.datetime) -> datetime.datetime | None:
    """The last time of *line* earlier than *before*, in UTC; None if there was none. Raises CronError."""
    for found in _times(line, before.astimezone(zone), reverse=True):
        moment = found.astimezone(datetime.UTC)
        if moment < before:
            return moment
    return None


def _times(line: str, start: datetime.datetime, *, reverse: bool = False) -> CronSim:
    from cronsim import CronSim, CronSimError

    try:
        return CronSim(MACROS.get(line, line), start, reverse)
    except (CronSimError, ValueError) as error:
        if _fires_in_some_month(line, start):
            raise CronError(
                f"{line[:60]!r} never fires: its months have no such day", "another day, or another month"
            ) from None
        known = "five fields: minute hour day-of-month month day-of-week"
        raise CronError(f"{line[:60]!r} is not a cron line: {str(error).lower()}", known) from None


def _fires_in_some_month(line: str, start: datetime.datetime) -> bool:
    """Whether *line* would be one if it named no month."""
    from cronsim import CronSim, CronSimError

    fields = line.split()
    if len(fields) < 2:
        return False
    fields[-2] = "*"
    try:
        CronSim(" ".join(fields), start)
    except (CronSimError, ValueError):
        return False
    return True
