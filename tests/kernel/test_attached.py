"""`up` that stays: what is shown, what ends it, and with which exit status."""

from __future__ import annotations

import pytest

from tests.conftest import Stack

FILE = """
services:
  job:
    image: busybox
    command: [sh, -c, "echo working; until rm /seen/web; do sleep 0.1; done; echo done; exit %d"]
    volumes: [seen:/seen]
  web:
    image: busybox
    command: [sh, -c, "echo serving; touch /seen/web; exec sleep 1000"]
    stop_signal: SIGKILL
    volumes: [seen:/seen, /data]
  quiet: {image: busybox, command: [sh, -c, "echo noise; exec sleep 1000"], stop_signal: SIGKILL, attach: false}
volumes: {seen: {}}
"""


@pytest.mark.parametrize(
    ("code", "options", "status"),
    [
        (7, ["--exit-code-from", "job"], 7),
        (0, ["--abort-on-container-exit"], 0),
        (3, ["--abort-on-container-failure"], 3),
        (5, ["--exit-code-from", "web"], 137),
    ],
)
def test_one_container_ends_them_all(stack: Stack, code: int, options: list[str], status: int) -> None:
    for _ in range(2):  # the second time nothing of the first is taken for it
        done = stack.up(FILE % code, *options, check=False)
        assert done.returncode == status
        assert f"{stack.name}-job-1 | working" in done.stdout
        assert f"{stack.name}-job-1 | done" in done.stdout
        assert done.stdout.count("serving") == 1
        assert "noise" not in done.stdout
        assert f"{stack.name}-job-1 ended with {code}: stopping the rest" in done.stderr
        assert {r["state"] for r in stack.ps().values()} == {"exited"}


def test_a_failure_is_waited_for_where_one_is_asked_for(stack: Stack) -> None:
    text = FILE.replace("exec sleep 1000", "sleep 1; exit 4") % 0
    done = stack.up(text, "--abort-on-container-failure", "--no-attach", "job", check=False)
    assert done.returncode == 4
    assert "working" not in done.stdout


def test_without_a_wish_it_stays_until_all_have_ended(stack: Stack) -> None:
    done = stack.up(
        "services:\n  a: {image: busybox, command: [sh, -c, 'echo one; exit 3']}\n"
        "  b: {image: busybox, command: [sh, -c, 'echo two']}\n",
        "--attach",
        check=False,
    )
    assert done.returncode == 0
    assert {"one", "two"} <= set(done.stdout.replace("|", " ").split())


def test_up_starts_again_what_was_stopped_by_hand(stack: Stack) -> None:
    stack.up(FILE % 0)
    stack.run("stop")
    assert stack.ps()["web-1"]["exit_code"] == 137
    stack.run("up")  # its old exit code is no verdict on the new start
    assert stack.ps()["web-1"]["state"] == "running"


def test_anonymous_volumes_are_kept_or_renewed(stack: Stack) -> None:
    stack.up(FILE % 0)
    stack.exec("web", "sh", "-c", "echo kept > /data/x")
    stack.run("up", "--force-recreate")
    assert stack.exec("web", "cat", "/data/x") == "kept\n"
    stack.run("up", "--force-recreate", "-V")
    assert stack.exec("web", "ls", "/data") == ""
    stack.exec("web", "sh", "-c", "echo new > /data/x")
    stack.run("up", "--force-recreate")
    assert stack.exec("web", "cat", "/data/x") == "new\n"


def test_bad_wishes_are_refused(stack: Stack) -> None:
    stack.write(FILE % 0)
    for options in (["--exit-code-from", "nope"], ["--no-attach", "nope"]):
        done = stack.run("up", *options, check=False)
        assert (done.returncode, "no such service: nope; stack " in done.stderr) == (1, True)
    for options in (["--attach", "--no-start"], ["-d", "--attach"]):
        assert stack.run("up", *options, check=False).returncode == 2
