"""`--chmod`: modes in octal digits or in letters.

Source: chmod(1), POSIX chmod, "Extended description"; Dockerfile reference, "COPY --chmod".
"""

from __future__ import annotations

import re

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*)+)\Z")
_BITS = {"r": 4, "w": 2, "x": 1}
_WHO = {"u": 6, "g": 3, "o": 0}


def changed(text: str, mode: int, *, directory: bool) -> int:
    """The mode that *text* makes of *mode*. Raises ValueError."""
    if re.fullmatch(r"[0-7]{1,4}", text):
        return int(text, 8)
    for clause in text.split(","):
        match = _CLAUSE.match(clause)
        if not match:
            raise ValueError(f"{text[:40]!r}: a mode is written like 755 or u=rwX,go=rX")
        who = match[1].replace("a", "ugo") or "ugo"
        for operator, letters in re.findall(r"([-+=])([rwxXst]*)", match[2]):
            bits, every = _bits(letters, who, mode, directory=directory)
            if operator == "+":
                mode |= bits
            elif operator == "-":
                mode &= ~bits
            else:
                mode = mode & ~every | bits
    return mode


def _bits(letters: str, who: str, mode: int, *, directory: bool) -> tuple[int, int]:
    """The bits that *letters* mean for *who*, and all that = puts in order there."""
    bits = every = 0
    for one in set(who):
        shift = _WHO[one]
        every |= 7 << shift | {"u": 0o4000, "g": 0o2000, "o": 0}[one]
        for letter in letters:
            if letter in _BITS:
                bits |= _BITS[letter] << shift
            elif letter == "X" and (directory or mode & 0o111):
                bits |= 1 << shift
            elif letter == "s":
                bits |= {"u": 0o4000, "g": 0o2000, "o": 0}[one]
    if "t" in letters:
        bits |= 0o1000
    return bits, every
