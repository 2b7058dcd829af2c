"""All drivers: ours, and those that installed distributions name as entry points `pystack.netplugins`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from netplugins.bridge import BridgeDriver
from netplugins.driver import Driver
from netplugins.macvlan import IpvlanDriver, MacvlanDriver
from netplugins.overlay import OverlayDriver

GROUP = "pystack.netplugins"
OWN = (BridgeDriver, OverlayDriver, MacvlanDriver, IpvlanDriver)
NAMES = tuple(d.name for d in OWN)
SELF_CONTAINED = (BridgeDriver.name, OverlayDriver.name)
"""Drivers that create nothing on links of the host."""
log = logging.getLogger(__name__)


def load(prefix: str) -> dict[str, Driver]:
    """All drivers by name, for an instance whose links begin with *prefix*.

    One that cannot be loaded is left out, with the reason in the log: it must not keep a node from its other work."""
    out: dict[str, Driver] = {}
    if not _others():
        return {d.name: d(prefix) for d in OWN}
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        try:
            driver: Driver = point.load()(prefix)
            out[driver.name] = driver
        except Exception:
            log.exception("network driver %s (%s) cannot be loaded", point.name, point.value)
    return out | {d.name: d(prefix) for d in OWN}


def _others() -> bool:
    """Whether any distribution names a driver. Reads files, because importlib.metadata takes 1 MB of memory."""
    try:
        return any(GROUP in f.read_text() for place in sys.path for f in Path(place or ".").glob("*-info/entry_points.txt"))
    except OSError:
        return True
