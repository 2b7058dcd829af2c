"""Lists in options, as Docker's clients write them."""

from __future__ import annotations

import csv

from agent.contract.printable import quoted
from agent.errors import BadRequestError

TRUE = ("1", "true")


def words(text: str) -> list[str]:
    """A list as options have it: between commas, quoted where a comma is meant. Raises BadRequestError."""
    try:
        return [word.strip() for word in next(csv.reader([text]), []) if word.strip()]
    except csv.Error as error:
        raise BadRequestError(f"{quoted(text)}: {error}") from None
