"""AppArmor: containers are confined where the kernel does it; said, where a wish cannot be met."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Stack

pytestmark = pytest.mark.kernel
ENABLED = Path("/sys/module/apparmor/parameters/enabled")
ACTIVE = ENABLED.exists() and ENABLED.read_text().strip() == "Y"
FILE = """
services:
  a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, cap_add: [SYS_ADMIN]}
  free: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, cap_add: [SYS_ADMIN], security_opt: ["apparmor=unconfined"]}
  mighty: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, privileged: true}
"""
WISH = """
services:
  a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, security_opt: ["apparmor:no-such-profile"]}
"""


@pytest.mark.skipif(not ACTIVE, reason="AppArmor is not active in this kernel")
def test_containers_are_confined(stack: Stack) -> None:
    stack.up(FILE)
    profile = ("cat", "/proc/self/attr/current")
    assert stack.exec("a", *profile).strip() == "pystack-default (enforce)"
    assert stack.exec("free", *profile).strip() == "unconfined"
    assert stack.exec("mighty", *profile).strip() == "unconfined"
    mount = ("sh", "-c", "mount -t tmpfs none /srv && echo mounted")
    assert stack.exec("free", *mount).strip() == "mounted"  # the capability and seccomp allow it, so it is AppArmor that
    assert stack.exec("a", *mount, check=False).strip() == ""  # does not
    assert stack.run("exec", "-T", "--privileged", "a", *profile).stdout.strip() == "unconfined"


def test_a_profile_that_is_not_there_is_an_error(stack: Stack) -> None:
    done = stack.up(WISH, check=False)
    assert done.returncode == 1
    wanted = "no such profile is loaded" if ACTIVE else "AppArmor is not active on this node"
    assert wanted in done.stderr
