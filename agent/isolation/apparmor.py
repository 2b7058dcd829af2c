"""AppArmor: the profile that containers run under where the kernel has it active.

Source: apparmor.d(5), apparmor_parser(8). It denies what Docker documents of its default profile: writing to kernel settings
in /proc and /sys, mounting, and tracing of processes outside containers.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agent import rootless
from agent.errors import BadRequestError

ENABLED = Path("/sys/module/apparmor/parameters/enabled")
LOADED = Path("/sys/kernel/security/apparmor/profiles")
DEFAULT = "pystack-default"
PROFILE = f"""
abi <abi/3.0>,
#include <tunables/global>
profile {DEFAULT} flags=(attach_disconnected,mediate_deleted) {{
  #include <abstractions/base>
  network,
  capability,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (send,receive) peer={DEFAULT},
  ptrace (trace,read,tracedby,readby) peer={DEFAULT},
  deny mount,
  deny @{{PROC}}/* w,
  deny @{{PROC}}/{{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9]*}}/** w,
  deny @{{PROC}}/sys/[^k]** w,
  deny @{{PROC}}/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny @{{PROC}}/sysrq-trigger rwklx,
  deny @{{PROC}}/kcore rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}}
"""


def is_active() -> bool:
    """Whether the kernel confines processes by AppArmor profiles."""
    try:
        return ENABLED.read_text().strip() == "Y" and LOADED.exists()
    except OSError:
        return False


def resolve(security_opt: Sequence[str], notes: list[str], *, privileged: bool) -> str:
    """The profile that a container runs under, "" for none. *notes* gets a line if this node cannot confine it.

    Raises BadRequestError for a profile that is not loaded: running without it would look like running with it."""
    wanted = next((o.replace(":", "=", 1).partition("=")[2] for o in security_opt if o.startswith("apparmor")), "")
    if wanted == "unconfined" or (privileged and not wanted):
        return ""
    if not is_active() or rootless.inside():  # to load a profile is root's
        if wanted:
            raise BadRequestError(f"security_opt apparmor={wanted}: AppArmor is not active on this node")
        return ""
    if wanted and wanted != DEFAULT:
        if wanted not in _loaded():
            raise BadRequestError(
                f"security_opt apparmor={wanted}: no such profile is loaded: `apparmor_parser -r FILE` loads one"
            )
        return wanted
    if problem := _load_default():
        notes.append(f"containers are not confined by AppArmor: {problem}")
        return ""
    return DEFAULT


def _loaded() -> set[str]:
    return {line.rpartition(" (")[0] for line in LOADED.read_text().splitlines()}


@functools.cache
def _load_default() -> str:
    """Load the default profile, once for each agent process, so that an upgrade loads its own. Why it failed, or ""."""
    parser = shutil.which("apparmor_parser")
    if parser is None:
        return "" if DEFAULT in _loaded() else "apparmor_parser is not installed (Debian's package apparmor)"
    done = subprocess.run([parser, "--replace", "--skip-cache"], input=PROFILE, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[0]
