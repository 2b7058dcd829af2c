"""What can go wrong with a network, as the caller needs to tell it apart."""

from __future__ import annotations


class NetworkError(Exception):
    """A network object could not be made: the text says which, why, and what to do."""


class UnsupportedError(NetworkError):
    """The kernel, or the host, lacks what a driver needs."""
