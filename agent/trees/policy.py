"""How an archive becomes files."""

from __future__ import annotations

from typing import NamedTuple


class Policy(NamedTuple):
    """How an archive becomes files. *whiteouts* are made as overlayfs has them, under the attribute *opaque*, or, where that is
    "", left to the caller as devices are; *owners* are kept; *attributes* are kept."""

    what: str = "archive"
    """What messages call the archive."""
    whiteouts: bool = False
    opaque: str = ""
    owners: bool = True
    attributes: bool = True
    devices: bool = True
    """Off: devices are left out, since this process cannot make any."""
    modes: int = 0o7777
    """The bits of a mode that are kept."""
    keep_directories: bool = False
    """On: a directory that is there is not replaced by something else."""
    owner: tuple[int, int] | None = None
    """The owner of each file, (user, group), in place of the archive's."""
    keep_others: bool = False
    """On: what is there and is no directory is not replaced by one."""
