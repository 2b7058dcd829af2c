"""How an archive becomes files."""

from __future__ import annotations

from typing import NamedTuple


class Policy(NamedTuple):
    """How an archive becomes files. *whiteouts* are made as overlayfs has them, under the attribute *opaque*, or, where that is
    "", left to the caller as devices are; *owners* are kept; *attributes* are kept."""

    what: str = "archive"
    """The name of the archive in messages."""
    whiteouts: bool = False
    opaque: str = ""
    owners: bool = True
    attributes: bool = True
    devices: bool = True
    """Off: devices are left out, since this process cannot make any."""
    modes: int = 0o7777
    """The bits of a mode that are kept."""
    keep_directories: bool = False
    """On: an existing directory is not replaced by another kind of file."""
    owner: tuple[int, int] | None = None
    """The owner of each file, (user, group), in place of the archive's."""
    keep_others: bool = False
    """On: an existing file of another kind is not replaced by a directory."""
