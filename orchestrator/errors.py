"""Errors of the control plane and the client, each with its exit status.

    PystackError
    ├── StackFileError   all problems of one reading of the stack files
    ├── Refused          the server or a node says no: its words are the message
    ├── Unreachable      no server answers
    └── Interrupted      the user ended a command
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class PystackError(Exception):
    """The text says what failed, where, why and what to do."""

    exit_status = 1


class Mark(msgspec.Struct, frozen=True, order=True):
    """A place in a stack file; line and column count from 1, as editors do."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    where: Mark
    what: str
    why: str = ""
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}"
        text += f": {self.why}" if self.why else ""
        return text + (f"\n    → {self.fix}" if self.fix else "")


class StackFileError(PystackError):
    """All problems of one reading, in the order of the files."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: p.where))
        super().__init__("\n".join(str(p) for p in self.problems))


class Refused(PystackError):
    """The server's own answer; *status* is HTTP's."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(PystackError):
    pass


class Interrupted(PystackError):
    exit_status = 130
