"""Bytes and durations. Source: Compose Specification, 11-extension.md (byte values, durations)."""

from __future__ import annotations

import re

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*(b|k|kb|kib|m|mb|mib|g|gb|gib|t|tb|tib|)\Z", re.IGNORECASE)
_SHIFT = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_PART = r"(\d+(?:\.\d+)?)(us|µs|ms|s|m|h|d|w|ns)"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def parse_bytes(value: object) -> int:
    """Bytes of 64, "64m", "1.5gb". Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("a size is a number with b, k, m or g")
    if isinstance(value, (int, float)):
        if value < 0:
            raise ValueError("a size cannot be negative")
        return int(value)
    match = _BYTES.match(str(value).strip())
    if not match:
        raise ValueError("a size is a number with b, k, m or g, such as 64m")
    return int(float(match[1]) * (1 << _SHIFT[match[2].lower()[:1]]))


def show_bytes(count: float) -> str:
    """*count* bytes in B, kB, MB or GB, in steps of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def show_duration(seconds: float) -> str:
    """As Go writes it: 1m30s, 1h0m0s, 500ms."""
    if 0 < abs(seconds) < 1:
        smaller = (("ms", 1e3), ("µs", 1e6), ("ns", 1e9))
        unit, scale = next((u, s) for u, s in smaller if round(seconds * s, 6) >= 1 or u == "ns")
        return f"{round(seconds * scale, 6):g}{unit}"
    whole, rest = divmod(round(seconds, 9), 60)
    hours, minutes = divmod(int(whole), 60)
    text = f"{rest:.9f}".rstrip("0").rstrip(".")
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{text}s"


def parse_duration(value: object) -> float:
    """Seconds of "1m30s", "500ms", "2d", 10. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    parts = re.findall(_PART, text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError("a duration is written like 1m30s or 500ms")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
