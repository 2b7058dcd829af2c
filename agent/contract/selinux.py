"""SELinux options of a container: `security_opt: label=…`, and `:z` and `:Z` of its mounts. Pure.

Source: docker-run(1), "--security-opt"; Compose Specification, 05-services.md, "volumes"; selinux(8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

DISABLE = "disable"
WORDS = ("user", "role", "type", "level", "filetype")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_LEVEL = re.compile(r"[A-Za-z0-9_.,:-]{1,256}")
"""Without quotes and blanks: a context stands between quotes in the options of a mount."""
BOTH = "bad SELinux option: z and Z can not be used together"


def options(security_opt: Iterable[str]) -> tuple[str, ...]:
    """What follows `label=`, or `label:` as it was written before, in *security_opt*: `disable`, `type:NAME` and the like."""
    pairs = (o.partition("=" if "=" in o else ":") for o in security_opt)
    return tuple(value for key, _, value in pairs if key == "label")


def problem(option: str) -> str:
    """What is wrong with one of `options`, in the words that Docker's tools look for; "" if nothing is."""
    word, colon, value = option.partition(":")
    if option == DISABLE:
        return ""
    if not colon or word == DISABLE:
        return f"bad label option \"{option}\", valid options 'disable' or {_words()} followed by ':' and a value"
    if word not in WORDS:
        return f"bad label option \"{word}\", valid options 'disable, {', '.join(WORDS)}'"
    if not (_LEVEL if word == "level" else _NAME).fullmatch(value):
        form = "such as s0:c1,c2" if word == "level" else "letters, digits and _ . -"
        return f"bad label option \"{option}\": {form} follow '{word}:'"
    return ""


def _words() -> str:
    return f"'{', '.join(WORDS)}'"


def relabelling(words: Iterable[str]) -> Literal["", "z", "Z"]:
    """Which of z (all containers may use the content) and Z (this one alone) is among the *words* of a mount; "" for none.
    Raises ValueError for both."""
    given = set(words)
    if given >= {"z", "Z"}:
        raise ValueError(BOTH)
    return "Z" if "Z" in given else "z" if "z" in given else ""
