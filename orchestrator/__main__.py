"""The program `pystack`: its start and its end, which for many a command are the most of it."""

from __future__ import annotations

import contextlib
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
        os._exit(_flushed(end.code or 0))


def _flushed(code: int) -> int:
    """The exit status, 1 where the last of the output does not get out."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return 1
    except OSError as error:
        if not code:  # else the command has said it already
            print(f"pystack: standard output: {error.strerror}", file=sys.stderr, flush=True)
        return 1
    except ValueError:
        pass  # closed already: the error was printed then
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()
