"""A container's logging options: how large its log may grow, and which syslog server gets its lines.

Source: Docker, "Configure logging drivers"."""

from __future__ import annotations

import re
from pathlib import Path

from agent.containers.rotation import RotationLimits
from agent.containers.syslog import SyslogAddress
from agent.contract.container import Container
from agent.contract.sizes import parse_size
from agent.errors import BadRequestError

JOURNAL = Path("/run/systemd/journal/socket")
MAX_FILES = 1000
NOT_LOGGED = "failed to initialize logging driver"
LOCAL_DEFAULTS = {"max-size": "20m", "max-file": "5"}
"""The defaults of the driver `local`."""


def limits(container: Container, default_size: str) -> RotationLimits:
    """How large the log may grow; without `max-size`, *default_size* (as "10m"). Raises BadRequestError."""
    options = dict(container.log_options)
    if container.log_driver == "local":
        options = LOCAL_DEFAULTS | options
    count = options.get("max-file", "1")
    if not re.fullmatch(r"[0-9]{1,9}", count) or not 0 < int(count) < MAX_FILES:
        why = "max-file cannot be less than 1" if count in ("0", "-1") else f"max-file is not a number: {count!r}"
        raise BadRequestError(f"{NOT_LOGGED}: {why}")
    try:
        return RotationLimits(parse_log_size(options.get("max-size", "") or default_size), int(count))
    except BadRequestError as error:
        raise BadRequestError(f"{NOT_LOGGED}: {error}") from None


def syslog_server(container: Container, name: str) -> SyslogAddress | None:
    """The syslog server that gets the lines of the container called *name*, None for none. Raises BadRequestError."""
    if container.log_driver == "journald" and not JOURNAL.exists():
        raise BadRequestError(f"logging driver journald: there is no journal on this node ({JOURNAL})")
    return SyslogAddress.of(dict(container.log_options), name) if container.log_driver == "syslog" else None


def parse_log_size(text: str) -> int:
    """Bytes of a log's `max-size`: 10m, 1g, or bytes; "", 0 and -1 are 0, no limit. Raises BadRequestError."""
    if text.strip() in ("", "-1"):
        return 0
    try:
        return parse_size(text, least=0)
    except ValueError:
        raise BadRequestError(f"invalid size: '{text}'") from None
