"""What is wrong with a stack file, and where: collected, and raised together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.errors import PystackError


class Mark(msgspec.Struct, frozen=True, order=True):
    """A place in a stack file; line and column count from 1, as editors do."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake: *what* is the key at *where*, *fix* what to do about it."""

    where: Mark
    what: str
    why: str = ""
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}"
        text += f": {self.why}" if self.why else ""
        return text + (f"\n    → {self.fix}" if self.fix else "")


class ShortFormError(ValueError):
    """A value that is one text, such as a port, cannot be read: *what* is wrong, and *fix*, what to write."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what}: {fix}" if fix else what)
        self.what, self.fix = what, fix


class StackFileError(PystackError):
    """All problems of one reading, in the order of the files; *warnings* and *differences* are what else was found."""

    def __init__(
        self, problems: Sequence[Problem], warnings: Sequence[Problem] = (), differences: Sequence[Problem] = ()
    ) -> None:
        self.warnings, self.differences = tuple(warnings), tuple(differences)
        self.problems = tuple(sorted(problems, key=lambda p: p.where))
        super().__init__("\n".join(str(p) for p in self.problems))
