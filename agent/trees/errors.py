"""The error of this package. It imports nothing: workers and clients share it."""

from __future__ import annotations


class TreeError(Exception):
    """A tree or archive is broken, hostile, or lacks what was requested; the text is for the user.

    *status* is the HTTP status of the Docker Engine API that fits."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
