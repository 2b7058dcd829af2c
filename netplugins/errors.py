"""The errors of networks, by what a caller does about them."""

from __future__ import annotations


class NetworkError(Exception):
    """A network object could not be created or changed; the text says which, why, and what to do.

    *errno* is the kernel's, 0 if the kernel gave none."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno
