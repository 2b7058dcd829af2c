"""Errors of the control plane and the client, each with its exit status.

PystackError
├── StackFileError   all problems of one reading of the stack files (`stackfile/problem.py`)
├── Refused          the server or a node says no: its words are the message
├── Unreachable      no server answers
└── Interrupted      the user ended a command
"""

from __future__ import annotations


class PystackError(Exception):
    """The text says what failed, where, why and what to do."""

    exit_status = 1


class RefusedError(PystackError):
    """The server's own answer; *status* is HTTP's."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


class UndeliveredError(RefusedError):
    """A node that answers could not take its manifest: its disk is full, for instance. It is offered again."""


class UnreachableError(PystackError):
    pass


class InterruptedByUserError(PystackError):
    exit_status = 130
