"""post_start and pre_stop: run inside the container, as whom and where the file says."""

from __future__ import annotations

import pytest

from tests.conftest import Stack

pytestmark = pytest.mark.kernel


def test_hooks_run_after_start_and_before_stop(stack: Stack) -> None:
    stack.up(
        """
services:
  a:
    image: busybox
    command: sh -c "trap 'cat /data/order > /data/seen; exit 0' TERM; while :; do sleep 0.05; done"
    volumes: ["data:/data"]
    post_start:
      - {command: [sh, -c, "echo started as $$(id -u) in $$PWD with $$WORD >> /data/order"], user: "7",
         working_dir: /tmp, environment: {WORD: hello}}
    pre_stop:
      - command: sh -c 'echo stopping >> /data/order'
  later:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    volumes: ["data:/data"]
volumes: {data: {}}
""",
        check=False,
    )
    failed = stack.run("up", check=False)
    assert failed.returncode == 1, "/data is root's: user 7 cannot write there, and its hook says so"
    assert "post_start hook" in failed.stderr
    assert "Permission denied" in failed.stderr
    stack.write(stack.file.read_text().replace('user: "7",', "user: root,"))
    stack.run("up")
    assert stack.exec("later", "cat", "/data/order") == "started as 0 in /tmp with hello\n"
    stack.run("stop", "a")
    assert stack.exec("later", "cat", "/data/seen").splitlines()[-1] == "stopping"


def test_what_is_run_inside_can_name_its_streams(stack: Stack) -> None:
    """As pipes have names, which sockets have not: for checks, hooks and `exec` alike."""
    stack.up(
        """
services:
  a:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    healthcheck: {test: "echo fine > /dev/stdout", interval: 0.2s}
    post_start: [{command: [sh, -c, "echo started > /dev/stderr"]}]
""",
        "--wait",
    )
    assert stack.run("exec", "-T", "a", "sh", "-c", "cat /dev/stdin > /dev/stdout", stdin="in and out").stdout == "in and out"


def test_a_check_that_leaves_something_behind_fails_and_is_tried_again(stack: Stack) -> None:
    """What it started holds its output when it has ended itself: nothing is left to kill, and the checks go on."""
    stack.up(
        """
services:
  a:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    healthcheck: {test: "test -e /once || { touch /once; sleep 1000 & }", interval: 0.2s, timeout: 0.5s, retries: 9}
""",
        "--wait",
    )
    assert stack.ps()["a-1"]["health"] == "healthy"


@pytest.mark.parametrize(("verb", "left"), [("stop", "exited"), ("down", "")])
def test_a_hook_that_fails_before_the_end_is_told_and_counts(stack: Stack, verb: str, left: str) -> None:
    stack.up(
        "services:\n  a:\n    image: busybox\n    command: sleep 1000\n    stop_signal: SIGKILL\n"
        "    pre_stop:\n    - {command: [sh, -c, 'echo not yet; exit 3']}\n"
    )
    done = stack.run(verb, check=False)
    assert done.returncode == 1
    assert "pre_stop hook 'sh -c echo not yet; exit 3' exited with 3: not yet" in done.stderr
    assert stack.ps().get("a-1", {}).get("state", "") == left
    if left:
        stack.run("start")
        assert stack.ps()["a-1"]["state"] == "running"
        stack.run("kill")
