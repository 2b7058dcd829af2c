"""Sizes as people write them. Pure, for every system: the client reads settings too."""

from __future__ import annotations

import re

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def parse_size(text: str, *, least: int = 1) -> int:
    """Bytes of `64m`, `1.5G`, `2GiB`, `4096`; *least* is the smallest that is allowed, 1 or 0. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if not match or (size := int(float(match[1]) * (1 << _SHIFTS[match[2].lower()]))) < least:
        raise ValueError(f"a size is a number {'from 0 on' if least == 0 else 'above 0'} with k, m, g or t")
    return size
