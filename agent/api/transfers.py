"""Engine API: the lines of a pull and of a push, in the words by which Docker's clients know the state of each layer.

Source: Docker Engine API v1.48, ImageCreate and ImagePush; the states are those of `docker pull` and `docker push`.
"""

from __future__ import annotations

from collections.abc import Callable

Line = dict[str, object]
PRESENT = "Already exists"


class PullLines:
    """The lines of the pull of one tag, whose digest was *before* ("" if it is new), made of the steps that the engine reports.

    A layer begins with "Pulling fs layer" and is "Pull complete" in the end; all its lines have `progressDetail`, which tells
    clients that they are a layer's. An image that is up to date has no line of a layer."""

    def __init__(self, tell: Callable[[Line], None], first: Line, before: str) -> None:
        self._tell, self._before = tell, before
        self._first: Line | None = first
        self._begun: set[object] = set()
        self._present: list[Line] = []
        """Layers that were here, until it is known whether the image was, too."""

    def step(self, step: Line) -> None:
        """Tell what follows of *step* of `agent.images.pull`."""
        if self._first is not None:
            self._tell(self._first)
            self._first = None
        layer, status = step.get("id"), step.get("status")
        if layer is None:
            if status != f"Digest: {self._before}":
                self._tell_present()
            self._tell(step)
            return
        if status == PRESENT:
            self._present.append({"progressDetail": {}, **step})
            return
        self._tell_present()
        if layer not in self._begun:
            self._begun.add(layer)
            self._tell({"status": "Pulling fs layer", "progressDetail": {}, "id": layer})
        if status == "Pull complete":
            for state in ("Verifying Checksum", "Download complete"):
                self._tell({"status": state, "progressDetail": {}, "id": layer})
        self._tell({"progressDetail": {}, **step})

    def _tell_present(self) -> None:
        for line in self._present:
            self._tell(line)
        self._present.clear()


def push_lines(tell: Callable[[Line], None]) -> Callable[[Line], None]:
    """A function that takes the steps of `agent.images.pull.push` and tells them: each line of a layer has `progressDetail`."""

    def step(line: Line) -> None:
        tell({"progressDetail": {}, **line} if "id" in line else line)

    return step
