"""How long ago something was, in the words that Docker's clients show."""

from __future__ import annotations


def human_duration(seconds: float) -> str:
    """*seconds* as "5 minutes", "About an hour", "3 weeks". Source: docker/go-units, duration."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if (minutes := whole // 60) < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if (hours := round(whole / 3600)) < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for days, most, unit in ((1, 14, "days"), (7, 60, "weeks"), (30, 730, "months")):
        if hours < most * 24:
            return f"{hours // (days * 24)} {unit}"
    return f"{hours // (365 * 24)} years"
