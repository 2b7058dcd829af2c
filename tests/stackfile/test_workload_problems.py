"""What x-job, x-schedule, x-hooks, x-update and x-scale cannot be is said with its place and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import PystackError
from orchestrator.stackfile.load import Options, load

PROBLEMS: list[tuple[str, str]] = [
    ("x-job: {max_concurrent: 2}", "is for work that ends"),
    ("deploy: {mode: global-job}, x-job: {total_completions: 3}", "a global-job has one task on each node"),
    ("deploy: {mode: replicated-job, replicas: 2}, x-job: {total_completions: 3}", "differs from deploy.replicas (2)"),
    ("x-schedule: '0 0 30 2 *'", "never fires"),
    ("x-schedule: {cron: '* * * * *', timezone: Mars/Olympus}", "Mars/Olympus"),
    ("x-schedule: every day", "every day"),
    ("deploy: {mode: global}, x-schedule: '* * * * *'", "deploy.mode global runs all the time"),
    ("x-hooks: {pre_deploy: {image: tool, command: []}}", "needs a command"),
    ("x-update: {strategy: canary}", "a canary needs steps"),
    ("x-update: {strategy: canary, steps: [{weight: 50%}, {weight: 10%}]}", "is 10%, and the step before has 50%"),
    ("x-update: {strategy: canary, steps: [{weight: most}]}", "must be a part of a hundred such as 5%"),
    ("x-update: {strategy: blue-green, steps: [{weight: 5%}]}", "are those of a canary"),
    ("deploy: {mode: global}, x-update: {strategy: blue-green}", "needs replicas, of which there can be more for a while"),
    ("x-scale: {min: 3, max: 2, target: {cpu: 50%}}", "min is 3, and max 2"),
    ("x-scale: {min: 0, max: 2, target: {cpu: 50%}}", "of no replica nobody can tell how busy it is"),
    ("x-scale: {max: 2, target: {memory: 50%}}", "is a part of nothing"),
    ("x-scale: {max: 2, target: {}}", "has no target that can be measured"),
    ("x-scale: {max: 2, target: {query: {promql: up, value: 0}}}", "needs a query, and a value above 0"),
    ("deploy: {mode: global}, x-scale: {max: 2, target: {cpu: 50%}}", "needs replicas, of which there can be more"),
    ("container_name: one, x-scale: {max: 2, target: {cpu: 50%}}", "several replicas cannot share the name"),
]


def read(folder: Path, fields: str) -> str:
    """What is said of a file whose only service has *fields*."""
    file = folder / "stack.yml"
    file.write_text(f"name: s\nservices:\n  a: {{image: busybox, {fields}}}\n")
    try:
        load(Options(files=(str(file),)), {})
    except PystackError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("fields", "said"), PROBLEMS, ids=[said for _, said in PROBLEMS])
def test_a_problem_has_its_place(tmp_path: Path, fields: str, said: str) -> None:
    found = read(tmp_path, fields)
    assert said in found
    assert "stack.yml:3:" in found


@pytest.mark.parametrize(
    "fields",
    [
        "deploy: {mode: replicated-job}, x-job: {total_completions: 3, max_concurrent: 1, keep: 5, deadline: 1h}",
        "x-schedule: {cron: '30 2 * * *', timezone: Europe/Berlin, deadline: 1h, history: 3, missed: run-once}",
        "x-hooks: {pre_deploy: ./check, post_deploy: {command: [a, b], image: tool, deadline: 1m}}",
        "x-update: {strategy: canary, steps: [{weight: 5%, hold: 1m}, {weight: 50%}], abort_on: {error_rate: 1%, p99: 2s}}, "
        "x-ingress: [{host: a.example.org, port: 80}]",
        "x-update: {strategy: blue-green, hold: 1m, analysis: ./look}",
        "mem_limit: 64m, x-scale: {min: 1, max: 4, target: {memory: 70%, cpu: 50%}}",
        "x-scale: {min: 0, max: 4, target: {rps: 10}}, x-ingress: [{host: a.example.org, port: 80}]",
        "x-scale: {min: 0, max: 4, target: {query: sum(queue_length)}}",
    ],
)
def test_what_is_right_is_read(tmp_path: Path, fields: str) -> None:
    assert read(tmp_path, fields) == ""
