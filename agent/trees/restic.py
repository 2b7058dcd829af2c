"""Runs restic with a volume beside it: `python -m agent.trees.restic`, whose order comes on standard input, as JSON.

    {"restic": PATH, "words": […], "places": {NAME: PATH}, "read_only": [NAME…], "files": {NAME: BASE64}, "environment": {…}}

Its root is that of `view`: an empty directory with the host's programs, the volume at /volume and what else is named. It may
reach servers: the repository is at one. While it reads a volume it has no right but to read all files; while it fills one,
those to give files their owners. Secrets are files of the empty root, in memory, and never words of a command.
Source: restic(1); sftp and rclone are programs that restic starts.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import NoReturn

from agent.trees import sandbox, view


def main() -> NoReturn:
    """Become restic; exits with 70 if it cannot start."""
    sandbox.die_with_parent()
    order = json.load(sys.stdin)
    restic: str = order["restic"]
    files = {name: base64.b64decode(text) for name, text in order["files"].items()}
    rights = view.READ_RIGHTS if "volume" in order["read_only"] else view.RIGHTS
    try:
        view.enter(order["places"], files, rights, read_only=order["read_only"], network=True)
        os.umask(0o077)
        os.execve(restic, [restic, *order["words"]], order["environment"])
    except OSError as error:
        sys.stderr.write(f"{restic} cannot be started: {error.strerror}\n")
    os._exit(70)


if __name__ == "__main__":
    main()
