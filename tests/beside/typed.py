"""What is typed on a terminal in the tour of Docker's command."""

from __future__ import annotations

from typing import NamedTuple


class Typed(NamedTuple):
    """A command on a terminal of 24 rows and 80 columns, and what is typed once the text before it has come."""

    command: str
    keys: tuple[tuple[str, str], ...] = ()
