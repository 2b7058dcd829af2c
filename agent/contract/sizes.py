"""Sizes as people write them. Pure, for every system: the client reads settings too."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def parse_size(text: str, *, least: int = 1) -> int:
    """Bytes of `64m`, `1.5G`, `2GiB`, `4096`; *least* is the smallest that is allowed, 1 or 0. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if not match or (size := int(float(match[1]) * (1 << _SHIFTS[match[2].lower()]))) < least:
        raise ValueError(f"a size is a number {'from 0 on' if least == 0 else 'above 0'} with k, m, g or t")
    return size


def hugepages(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """*pairs* of a size of huge pages (2MB, 1g) and of how much may be in use, with the size as the kernel's files name it and
    bytes. Raises ValueError."""
    found = []
    for page, limit in pairs:
        size = parse_size(page)
        if size & (size - 1):
            raise ValueError(f"{page}: huge pages have a size such as 2MB or 1GB")
        most = 0 if limit.strip() == "0" else parse_size(limit)
        if most % size:
            raise ValueError(f"{limit} are not whole pages of {page}")
        shift = next(shift for shift in (30, 20, 10) if size >> shift)
        found.append((f"{size >> shift}{'?KMG'[shift // 10]}B", str(most)))
    return tuple(found)
