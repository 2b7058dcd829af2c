"""Errors of the control plane and the client, each with its exit status.

PystackError
├── StackFileError   all problems of one reading of the stack files (`stackfile/problem.py`)
├── RefusedError     the server or a node says no: its words are the message
│   └── NoSuchServiceError
├── UnreachableError no server answers
│   └── SilentNodeError
└── InterruptedByUserError
"""

from __future__ import annotations

from collections.abc import Iterable


class PystackError(Exception):
    """The text says what failed, where, why and what to do."""

    exit_status = 1


class RefusedError(PystackError):
    """The server's own answer; *status* is HTTP's."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


class NoSuchServiceError(RefusedError):
    """The *services* are none of *stack*, whose services are *known*. Status 404."""

    def __init__(self, services: Iterable[str], stack: str, known: Iterable[str]) -> None:
        self.services = tuple(sorted(services))
        there = ", ".join(sorted(known)) or "none"
        super().__init__(f"no such service: {', '.join(self.services)}; stack {stack} has: {there}", 404)


def require_services(named: Iterable[str], stack: str, known: Iterable[str]) -> None:
    """Raises NoSuchServiceError with all that are *named* and not among the *known* services of *stack*."""
    known = set(known)
    if unknown := set(named) - known:
        raise NoSuchServiceError(unknown, stack, known)


class UndeliveredError(RefusedError):
    """A node that answers could not take its manifest: its disk is full, for instance. It is offered again."""


class UnreachableError(PystackError):
    """A server, a node or its host does not answer."""


class SilentNodeError(UnreachableError):
    """The agent of *node* does not answer, for *reason*."""

    def __init__(self, node: str, reason: object) -> None:
        self.node, self.reason = node, str(reason)
        super().__init__(f"node {node} does not answer: {reason}")


class InterruptedByUserError(PystackError):
    """The user ended the command."""

    exit_status = 130
