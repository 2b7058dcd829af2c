"""The program `pystack`: its start and its end, which for many a command are the most of it."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command, and end with its exit status.

    Nothing is collected while modules are loaded, all of which stay; and they are not taken apart at the end, as the
    interpreter would."""
    gc.set_threshold(50_000)
    from orchestrator.cli import main as run

    try:
        run()
    except SystemExit as end:
        threads = sys.modules.get("threading")
        if not isinstance(end.code, int | None) or (threads and threads.active_count() > 1):
            raise  # there are words to print, or others to wait for
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            raise end from None  # the interpreter says what becomes of it
        os._exit(end.code or 0)


if __name__ == "__main__":
    main()
