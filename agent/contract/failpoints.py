"""Named points at which a test can end the process, one at each external effect.

`PYSTACK_FAILPOINT=name[:count]` ends the process with SIGKILL at the count-th passing of *name*; names are listed by
`grep -rn 'failpoint("' agent`. Without the variable a passing costs one dictionary look-up.
"""

from __future__ import annotations

import os
import signal

_wanted, _, _count = os.environ.get("PYSTACK_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def failpoint(name: str) -> None:
    """End here where a test asked for it."""
    global _left
    if name == _wanted:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
