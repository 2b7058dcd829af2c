"""Stack files that lie elsewhere: in a git repository, or in a registry as an OCI artifact.

This module says which text names such a file; what fetches it is handed in by the client (`cli.remote_files`). Source:
Compose Specification, 14-include.md; docs.docker.com/compose/how-tos/multiple-compose-files and oci-artifact.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

OCI = "oci://"
Fetch = Callable[[str], Path]
"""The local copy of the stack file that a text names. Raises PystackError where it cannot be had."""


def is_remote(text: str) -> bool:
    """Whether *text* names a repository, an artifact or another address rather than a path."""
    return "://" in text or text.startswith(("git@", "github.com/"))
