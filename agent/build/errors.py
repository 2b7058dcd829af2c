"""What is wrong with a Dockerfile, and where; and a RUN that failed."""

from __future__ import annotations

from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError

AROUND = 2
"""Lines that are shown before and after the one that is meant."""


class DockerfileError(BadRequestError):
    """*why* at *line* and *column*, both from 1, of *text*, which is called *name*."""

    def __init__(self, why: str, line: int, column: int = 1, *, name: str = "Dockerfile", text: str = "") -> None:
        self.why, self.line, self.column = why, line, column
        lines = text.splitlines()
        first, last = max(1, line - AROUND), min(len(lines), line + AROUND)
        excerpt = "".join(
            f"\n{number:4} | {'>>> ' if number == line else '    '}{quoted(lines[number - 1])}"
            for number in range(first, last + 1)
        )
        super().__init__(f"{quoted(name)}:{line}:{column}: {why}{excerpt}")


class RunError(AgentError):
    """A command that ended with exit status *code*."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
