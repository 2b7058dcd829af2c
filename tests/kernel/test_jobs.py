"""Jobs and schedules on real containers: what ends, how it is waited for, how it is told."""

from __future__ import annotations

import time
from typing import Any

from tests.conftest import Stack, eventually

JOBS = """
services:
  ends:
    image: busybox
    command: sh -c "sleep 1; echo the end; exit 3"
    deploy: {mode: replicated-job, restart_policy: {condition: none}}
  tries:
    image: busybox
    command: sh -c "echo try; exit 4"
    deploy: {mode: replicated-job, restart_policy: {max_attempts: 2}}
  long:
    image: busybox
    command: sleep 100
    stop_signal: SIGKILL
    x-job: {deadline: 2s}
    deploy: {mode: replicated-job}
  limited:
    image: busybox
    command: sh -c "echo try; exit 4"
    deploy: {restart_policy: {condition: any, max_attempts: 2, delay: 100ms}}
"""
TURNS = """
services:
  job:
    image: busybox
    command: sh -c "sleep 0.%s"
    x-job: {total_completions: 5, max_concurrent: 2}
    deploy: {mode: replicated-job}
  after:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    depends_on: {job: {condition: service_completed_successfully}}
"""
CRON = """
services:
  tick:
    image: busybox
    command: sh -c "echo tick; exit 5"
    x-schedule: {cron: "* * * * * *", history: 3}
  many:
    image: busybox
    command: sh -c "echo one of $$(hostname)"
    deploy: {replicas: 3}
    x-job: {max_concurrent: 1}
    x-schedule: "@yearly"
"""


RESERVING = """
services:
  job:
    image: busybox
    command: "true"
    deploy: &all {mode: replicated-job, resources: {reservations: {cpus: "%s"}}}
"""
BESIDE = (
    RESERVING
    + """
  app:
    image: busybox
    command: sleep 100
    stop_signal: SIGKILL
    deploy: {<<: *all, mode: replicated}
"""
)


def test_what_a_job_reserves_is_free_when_it_has_ended(stack: Stack) -> None:
    def cpus(kind: str) -> float:
        [row] = stack.pystack.json("node", "ls", "--format", "json")
        return float(row[kind]["cpus"])

    def is_free() -> None:
        assert cpus("reserved") == 0

    most = cpus("capacity") * 0.75
    stack.up(RESERVING % most)
    eventually(is_free)
    stack.up(BESIDE % most)
    assert cpus("reserved") == most


def history_of(stack: Stack) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = stack.pystack.json("job", "history", "-p", stack.name, "--format", "json")
    return rows


def check(holds: bool) -> None:
    assert holds


def test_up_waits_for_jobs_and_tells_how_they_end(stack: Stack) -> None:
    done = stack.up(JOBS, check=False)
    assert done.returncode == 1
    assert f"{stack.name}-ends-1: exited with 3" in done.stderr
    assert "| the end" in done.stderr
    assert f"{stack.name}-long-1: had not ended after 2s, its deadline" in done.stderr
    runs = {r["service"]: r for r in history_of(stack)}
    assert {name: r["state"] for name, r in runs.items()} == {"ends": "failed", "tries": "failed", "long": "failed"}
    assert runs["tries"]["tasks"][0]["output"] == ["try"] * 3
    eventually(lambda: check(stack.ps()["limited-1"]["state"] == "exited"))
    assert stack.run("logs", "limited").stdout.count("try") == 3


def test_so_many_tasks_of_a_job_run_at_a_time(stack: Stack) -> None:
    done = stack.up(TURNS % 3)
    running, most = set[str](), 0
    for line in done.stderr.splitlines():
        name, _, word = line.partition(": ")
        if "-job-" in name and word in ("running", "exited"):
            running = running | {name} if word == "running" else running - {name}
            most = max(most, len(running))
    assert 0 < most <= 2
    assert [s["exit_code"] for t, s in sorted(stack.ps().items()) if t.startswith("job")] == [0] * 5
    assert stack.run("plan", "--exit-code", check=False).returncode == 0
    stack.up(TURNS % 4, "--no-wait")
    eventually(lambda: check([r["state"] for r in history_of(stack)] == ["succeeded", "succeeded"]))


def test_a_schedule_runs_at_its_times_and_by_hand(stack: Stack) -> None:
    stack.up(CRON)
    one = ("-p", stack.name)

    def ticked() -> None:
        runs = [r for r in history_of(stack) if r["service"] == "tick" and r["state"] == "failed"]
        assert len(runs) == 3
        assert all(r["tasks"][0]["output"] == ["tick"] for r in runs)
        begun = [time.mktime(time.strptime(r["begun"][:19], "%Y-%m-%dT%H:%M:%S")) for r in runs]
        assert begun == sorted(set(begun))

    eventually(ticked, 20)
    stack.pystack("cron", "pause", *one, "tick")
    row = stack.pystack.json("cron", "ls", *one, "--format", "json")[0]
    assert row["paused"]
    assert row["next"] == ""
    failed = stack.pystack("cron", "run", *one, "tick", check=False)
    assert failed.returncode == 1
    assert "exited with 5" in failed.stderr
    assert "| tick" in failed.stderr
    stack.pystack("cron", "run", *one, "many")
    (many,) = (r for r in history_of(stack) if r["service"] == "many")
    assert len({t["output"][0] for t in many["tasks"]}) == 3
    eventually(lambda: check(stack.ps() == {}))  # containers of runs go, what they said stays
    refused = stack.pystack("cron", "run", *one, "nobody", check=False)
    assert "no such service: nobody; stack " in refused.stderr
    stack.down()
    assert stack.pystack.json("cron", "ls", "--all", "--format", "json") == []


HOMELESS = """
services:
  nowhere:
    image: busybox
    command: "true"
    x-schedule: "* * * * * *"
    deploy: {placement: {constraints: [node.labels.none == there]}}
  tick: {image: busybox, command: "true", x-schedule: "* * * * * *"}
"""


def test_a_run_that_no_node_can_take_keeps_no_other_from_its_time(stack: Stack) -> None:
    stack.up(HOMELESS)

    def ticked() -> None:
        found = {(r["service"], r["state"]) for r in history_of(stack)}
        assert {("nowhere", "pending"), ("tick", "succeeded")} <= found

    eventually(ticked, 20)
    (waiting,) = (r for r in history_of(stack) if r["state"] == "pending" and r["service"] == "nowhere")
    assert "constraint: node.labels.none == there" in waiting["reason"]


WRONG = """
services:
  a: {image: i, x-schedule: "0 0 31 2 *"}
  b: {image: i, x-schedule: {cron: "1 2 3", timezone: Mars/Olympus}}
  c: {image: i, x-job: {keep: 0}}
  d: {image: i, deploy: {mode: global}, x-schedule: "@daily"}
"""


def test_all_that_is_wrong_with_a_schedule_is_told_at_once(stack: Stack) -> None:
    done = stack.up(WRONG, check=False)
    assert done.returncode == 1
    for words in (
        "stack.yml:3:",
        "never fires: its months have no such day",
        "is not a cron line: wrong number of fields",
        "there is no time zone 'Mars/Olympus'",
        "must be a whole number from 1 to 1000",
        "is for work that ends",
        "runs all the time",
    ):
        assert words in done.stderr, (words, done.stderr)
