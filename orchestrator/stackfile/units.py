"""Bytes and durations. Source: Compose Specification, 11-extension.md (byte values, durations)."""

from __future__ import annotations

import re

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*(b|k|kb|kib|m|mb|mib|g|gb|gib|t|tb|tib|)\Z", re.IGNORECASE)
_SHIFT = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|µs|ms|s|m|h|d|w|ns)")
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


def parse_duration(value: object) -> float:
    """Seconds of "1m30s", "500ms", "2d", 10. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    parts = _PART.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError("a duration is written like 1m30s or 500ms")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
