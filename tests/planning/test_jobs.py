"""How far a job is: pure, tasks and statuses in, an answer out."""

from __future__ import annotations

import msgspec
import pytest

from agent.contract.container import Container, digest
from agent.contract.status import TaskStatus
from agent.contract.task import Task
from orchestrator.planning.diff import plan
from orchestrator.planning.expand import expand
from orchestrator.planning.jobs import held_back, iteration, progress
from orchestrator.planning.state import State
from orchestrator.stackfile.model import Service, Stack
from orchestrator.stackfile.workloads import Job, Schedule

JOB = Service(
    name="job", container=Container(image="i"), where="s:1:1", mode="replicated-job", replicas=4, job=Job(max_concurrent=2)
)
STACK = Stack(name="t", services=(JOB,))


def tasks(words: str) -> tuple[list[Task], dict[str, TaskStatus]]:
    """One task a letter: - waits, r runs, d ended well, f failed for good, p was let go and has no status yet."""
    made, statuses = [], {}
    for index, letter in enumerate(words, 1):
        task = Task(
            name=f"t-job-{index}",
            stack="t",
            service="job",
            container=JOB.container,
            index=index,
            node="local",
            desired="waiting" if letter == "-" else "running",
            where="s:1:1",
        )
        made.append(task)
        state, code = {"r": ("running", None), "d": ("exited", 0), "f": ("exited", 3)}.get(letter, ("", None))
        if state:
            statuses[task.name] = TaskStatus(
                task=task.name,
                state=state,  # type: ignore[arg-type]
                container="c",
                digest=digest(task.container),
                exit_code=code,
            )
    return made, statuses


CASES = {
    "----": (False, "", None),  # what it depends on is not there yet
    "rr--": (True, "", None),
    "rp--": (True, "", None),
    "dr--": (True, "3", None),
    "dd--": (True, "34", None),
    "df--": (True, "34", None),
    "dddr": (True, "", None),
    "dddd": (True, "", True),
    "dfdd": (True, "", False),
}


@pytest.mark.parametrize("words", CASES)
def test_progress(words: str) -> None:
    found = progress(JOB, *tasks(words))
    assert (found.begun, "".join(str(t.index) for t in found.release), found.succeeded) == CASES[words]
    assert all(t.desired == "running" for t in found.release)


def test_a_status_of_an_earlier_start_says_nothing_of_this_one() -> None:
    made, statuses = tasks("dddd")
    again = [msgspec.structs.replace(t, generation=1) for t in made]
    assert progress(JOB, again, statuses).succeeded is None
    assert iteration(again) != iteration(made)


def test_as_many_run_as_may() -> None:
    made, statuses = tasks("dppp")
    assert held_back(JOB, made, statuses) == {"t-job-4"}
    assert held_back(msgspec.structs.replace(JOB, job=Job()), made, statuses) == frozenset()


def test_a_plan_leaves_those_alone_whose_turn_has_not_come() -> None:
    made, statuses = tasks("rr--")
    current = State(tasks=tuple(made))
    assert plan(STACK, expand(STACK, current), current, revision=1, statuses=statuses).changes == ()


def test_a_service_with_a_schedule_has_no_tasks_but_those_of_its_runs() -> None:
    cron = msgspec.structs.replace(JOB, schedule=Schedule(cron="@daily"))
    stack = Stack(name="t", services=(cron,))
    (run, *_), _ = tasks("r")
    current = State(tasks=(msgspec.structs.replace(run, run="1"),))
    made = plan(stack, expand(stack, current), current, revision=1)
    assert made.changes == ()
    assert made.desired.tasks == current.tasks
    left = plan(Stack(name="t"), expand(Stack(name="t"), current), current, revision=1)
    assert "Found orphan containers ([t-job-1])" in left.warnings[0]
