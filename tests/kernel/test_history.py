"""Revisions of a stack, rollback of the whole of it, and saved plans that are done exactly or refused."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import Stack

pytestmark = pytest.mark.kernel
ONE = """
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, environment: {LEVEL: "%s"}, configs: [greeting]}
configs: {greeting: {content: "%s"}}
"""
EXTRA = "  more: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}\nconfigs:"


def test_a_rollback_brings_back_the_whole_stack(stack: Stack) -> None:
    stack.up(ONE % ("info", "hello"), "-m", "first light")
    stack.up((ONE % ("debug", "goodbye")).replace("configs:\n", EXTRA).replace("\nconfigs:", "\n" + EXTRA, 1), "-m", "louder")
    assert stack.exec("web", "sh", "-c", "echo $LEVEL; cat /greeting") == "debug\ngoodbye"
    rows = json.loads(stack.run("history", "--format", "json").stdout)
    assert [(r["revision"], r["message"], r["current"]) for r in rows] == [(1, "first light", False), (2, "louder", True)]
    assert all(r["user"] and r["updated"] for r in rows)
    before = stack.ps()
    plan = json.loads(stack.run("plan", "--to", "1", "--json").stdout)
    todo = {(s["action"], s["kind"], s["name"].removeprefix(f"{stack.name}-")) for s in plan["steps"] if s["action"] != "none"}
    assert {("replace", "task", "web-1"), ("remove", "task", "more-1")} <= todo
    assert stack.run("up", "--dry-run", "--force-recreate").stdout.splitlines()[-1] == "2 to replace"
    assert stack.ps() == before
    stack.run("rollback")
    assert stack.exec("web", "sh", "-c", "echo $LEVEL; cat /greeting") == "info\nhello"
    assert set(stack.ps()) == {"web-1"}
    rows = json.loads(stack.run("history", "--format", "json").stdout)
    assert rows[-1]["revision"] == 3
    assert rows[-1]["message"] == "rollback to revision 1"
    stack.run("rollback", "2")
    assert set(stack.ps()) == {"web-1", "more-1"}
    missing = stack.run("rollback", "77", check=False)
    assert missing.returncode == 1
    assert "has no revision 77" in missing.stderr


def test_a_rollback_leads_back_to_the_same_kernel(stack: Stack) -> None:
    """Links, addresses, routes, rules, published ports and limits are what they were, whatever came between."""
    first = """
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, ports: ["18099:80"], networks: [a, b], mem_limit: 64m}
networks: {a: {}, b: {internal: true}}
"""
    second = """
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, ports: ["18100:80"], networks: [b, c], mem_limit: 32m}
  more: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: [c]}
networks: {b: {internal: true}, c: {}}
"""

    def kernel() -> dict[str, list[str]]:
        rules = stack.pystack.on("n1", "nft", "list", "ruleset")
        # a new container has a new MAC address and a new name of its link, and sets are listed in no order
        rules = re.sub(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|fe80:[0-9a-f:]+|0xfe80[0-9a-f]+", "OF-A-MAC", rules)
        rules = re.sub(r'"ps[0-9a-z]+"', "LINK", re.sub(r".*revision.*", "", rules))
        rules = "\n".join(re.split(r"[\s,]+", rules))
        bridges = stack.pystack.on("n1", "ip", "-br", "addr", "show", "type", "bridge")
        inside = stack.exec("web", "sh", "-c", "ip -o -4 addr; ip route; cat /proc/net/dev | wc -l")
        v1, v2 = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"
        limit = stack.exec("web", "sh", "-c", f"cat {v1} {v2} 2>/dev/null || true")
        inside = re.sub(r"@if\d+|^\d+: ", "", inside, flags=re.M)
        lines = {"rules": rules, "bridges": bridges, "inside": inside, "limit": limit}
        return {k: sorted(line for line in v.splitlines() if "revision" not in line) for k, v in lines.items()}

    stack.up(first)
    before = kernel()
    stack.up(second, "--remove-orphans")
    assert kernel() != before
    stack.run("rollback")
    assert kernel() == before


def test_a_stack_that_is_down_keeps_its_history(stack: Stack) -> None:
    stack.up(ONE % ("info", "hello"))
    stack.run("down")
    stack.run("rollback", "1")
    assert stack.exec("web", "cat", "/greeting") == "hello"
    rows = json.loads(stack.run("history", "--format", "json").stdout)
    assert [r["revision"] for r in rows] == [1, 2]


def test_a_saved_plan_is_done_exactly_or_refused(stack: Stack) -> None:
    stack.write(ONE % ("info", "hello"))
    file = stack.directory / "plan.json"
    stack.run("plan", "-o", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert stack.ps() == {}, "a plan has no effect"
    stack.pystack("apply", str(file))
    assert stack.exec("web", "cat", "/greeting") == "hello"
    again = stack.pystack("apply", str(file), check=False)
    assert again.returncode == 1
    assert "the state moved since this plan was made" in again.stderr
    stack.write(ONE % ("debug", "hello"))
    stack.run("plan", "-o", str(file))
    stack.run("stop")
    refused = stack.pystack("apply", str(file), check=False)
    assert refused.returncode == 1
    assert stack.ps()["web-1"]["state"] == "exited"
