"""What Swarm's templates speak of, apart from the language (`golang_template.py`): most files have none, and load no language.

Source: Docker CLI reference, `docker service create`, "Create services using templates".
"""

from __future__ import annotations

import re

_BRACES = r"\{\{[^{}]*"
_SWARM = r"\.(?:Service|Node|Task)\b"


def names_swarm(text: str) -> bool:
    """Whether *text* has a placeholder of Swarm's: other braces are somebody else's, and stay."""
    return "{{" in text and any(re.search(_SWARM, braces) for braces in re.findall(_BRACES, text))


def identifier(*words: str) -> str:
    """25 letters and digits that stand for *words*, as Swarm's IDs look."""
    import hashlib

    number = int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest())
    out = ""
    while len(out) < 25:
        number, rest = divmod(number, 36)
        out += "0123456789abcdefghijklmnopqrstuvwxyz"[rest]
    return out
