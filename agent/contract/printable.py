"""Text of strangers as it may go to a terminal: nothing in it moves the cursor, colours the screen or fills it."""

from __future__ import annotations

MAX_NAME = 120
NAME_KEPT = 100
MAX_TEXT = 1900
"""Characters of an error's message, by default."""


def escaped(text: str, keep: str = "") -> str:
    """*text* with every character escaped that is not printable, except those of *keep*."""
    return "".join(c if (c.isprintable() and not 0xD800 <= ord(c) < 0xE000) or c in keep else ascii(c)[1:-1] for c in text)


def quoted(name: str) -> str:
    """A name in a message, on one line; one longer than 120 characters is cut."""
    return escaped(name if len(name) <= MAX_NAME else f"{name[:NAME_KEPT]}…")


def shown(text: str, longest: int = MAX_TEXT) -> str:
    """A whole message, with its lines; the middle of one longer than *longest* characters is left out."""
    if len(text) > longest:
        text = f"{text[: longest // 2]} … {text[-longest // 2 :]}"
    return escaped(text, "\n\t")
