"""The units of systemd on this host, where there are any."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator


def _systemctl(*words: str) -> bool:
    try:
        return subprocess.run(["systemctl", *words], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


class Units:
    """*again* are those that run afterwards."""

    def __init__(self, again: list[str]) -> None:
        self.again = again

    def advice(self) -> str:
        """What is still to be done by hand, as the end of a sentence."""
        return "" if self.again else "; start it: `pystack server`"


@contextlib.contextmanager
def stopped(*names: str) -> Iterator[Units]:
    """Stop the units *names* for as long as this lasts. Those that ran start again, unless `again` says otherwise by then."""
    units = Units([name for name in names if _systemctl("is-active", "--quiet", name)])
    for name in units.again:
        _systemctl("stop", name)
    try:
        yield units
    finally:
        for name in units.again:
            _systemctl("start", name)
