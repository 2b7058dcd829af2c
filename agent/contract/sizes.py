"""Sizes as people write them. Pure, for every system: the client reads settings too."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def parse_size(text: str) -> int:
    """Bytes of `64m`, `1.5G`, `2GiB`, `4096`. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if not match or not (size := int(float(match[1]) * (1 << _SHIFTS[match[2].lower()]))):
        raise ValueError("a size is a number above 0 with k, m, g or t")
    return size
