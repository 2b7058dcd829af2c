"""The result of an extraction, and the work that it leaves to the host's root."""

from __future__ import annotations

from agent.trees.errors import TreeError

MAX_FIXUPS = 100_000
"""Devices and opaque directories of one layer: more than any real one has."""


class ExtractedTree:
    """*size*, bytes in files; and the work that only the host's root can do, in this order: *devices*, path → mode with
    its kind, major, minor, owner, group, time; and *opaque* directories. *title* is the name of the archive in messages."""

    def __init__(self, title: str = "archive") -> None:
        self.size = 0
        self.devices: dict[str, tuple[int, int, int, int, int, float]] = {}
        self.opaque: set[str] = set()
        self._title = title

    def add_device(self, path: str, device: tuple[int, int, int, int, int, float]) -> None:
        """Leave the *device* at *path* to the host's root. Raises TreeError if there are too many."""
        self.devices[path] = device
        self._check_bound()

    def add_opaque(self, path: str) -> None:
        """Leave it to the host's root to make the directory *path* opaque. Raises TreeError if there are too many."""
        self.opaque.add(path)
        self._check_bound()

    def _check_bound(self) -> None:
        if len(self.devices) + len(self.opaque) > MAX_FIXUPS:
            raise TreeError(f"the {self._title} has more than {MAX_FIXUPS} devices and replaced directories")

    def forget(self, path: str) -> None:
        """Drop devices and opaque directories at *path* and below, which a later entry replaces."""
        if not self.devices and not self.opaque:
            return
        self.devices.pop(path, None)
        below = f"{path}/"
        for gone in [p for p in self.opaque if p == path or p.startswith(below)]:
            self.opaque.discard(gone)
        for gone in [p for p in self.devices if p.startswith(below)]:
            del self.devices[gone]

    def is_below_device(self, path: str) -> bool:
        """Whether *path* lies below a device: devices are made last, so they are not on the disk yet."""
        above = path.rpartition("/")[0]
        while above and self.devices:
            if above in self.devices:
                return True
            above = above.rpartition("/")[0]
        return False
