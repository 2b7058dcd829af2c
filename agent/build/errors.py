"""What is wrong with a Dockerfile, and where; and a RUN that failed."""

from __future__ import annotations

from collections.abc import Sequence

from agent.contract.printable import quoted
from agent.errors import AgentError, BadRequestError

AROUND = 2
"""Lines that are shown before and after the one that is meant."""
LONGEST = 1900
"""Characters of an error about several mistakes, of which those that fit are shown."""


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


class MistakesError(DockerfileError):
    """Several mistakes of one Dockerfile, one below the other, as many as fit. Its place is that of the first."""

    def __init__(self, mistakes: Sequence[DockerfileError]) -> None:
        self.why, self.line, self.column = mistakes[0].why, mistakes[0].line, mistakes[0].column
        text, *others = map(str, mistakes)
        for number, other in enumerate(others):
            if len(text) + len(other) > LONGEST:
                text += f"\n… and {len(others) - number} more"
                break
            text += f"\n{other}"
        BadRequestError.__init__(self, text)


def raise_together(mistakes: Sequence[DockerfileError]) -> None:
    """Raises DockerfileError for one of *mistakes*, MistakesError for several."""
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        raise MistakesError(mistakes)


class RunError(AgentError):
    """A command that ended with exit status *code*."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
