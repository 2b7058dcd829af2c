"""What a program of this folder is made of: cases that are run one after the other, a line for each."""

from __future__ import annotations

import os
import sys
import time
import traceback
from http.client import HTTPException

CASES = []


def case(function):
    CASES.append(function)
    return function


def until(check, within_s=20.0):
    """What *check* returns, once that is anything."""
    deadline = time.monotonic() + within_s * float(os.environ.get("PYSTACK_TEST_PATIENCE", "1"))
    while True:
        try:
            found = check()
        except (OSError, HTTPException) as error:  # what is not there yet
            found, last = None, error
        else:
            last = found
        if found:
            return found
        assert time.monotonic() < deadline, f"{check} stays {last!r}"
        time.sleep(0.05)


def run_all(call):
    """Run every case (those named in the arguments) by *call*; the exit status says whether all went well."""
    failed = 0
    for function in CASES:
        if sys.argv[1:] and function.__name__ not in sys.argv[1:]:
            continue
        try:
            call(function)
        except BaseException:
            failed += 1
            print(f"failed {function.__name__}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok {function.__name__}", flush=True)
    sys.exit(bool(failed))
