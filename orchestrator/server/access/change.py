"""What a request changes, as it goes on: collected for its line in the log of changes."""

from __future__ import annotations

from orchestrator.server.access.log import STEPS
from orchestrator.server.events import DoneEvent, ErrorEvent, Event, StepEvent


class Change:
    """Takes the events of a streamed answer. *target* is what a handler says that it was about."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.more = 0
        self.problem = ""
        self.stack = ""
        self.target = ""

    def see(self, event: Event) -> None:
        """Note what *event* says of a plan, or of its end."""
        match event:
            case StepEvent():
                if len(self.steps) < STEPS:
                    self.steps.append(f"{event.action} {event.kind} {event.name}")
                else:
                    self.more += 1
            case ErrorEvent():
                self.problem = event.message
            case DoneEvent() if event.failures:
                self.problem = "; ".join(f"{f.task}: {f.reason}" for f in event.failures[:5])
            case _:
                pass
