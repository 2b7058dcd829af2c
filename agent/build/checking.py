"""What of a build can be checked before its first step: platforms, options of RUN, files that COPY takes of the context."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from agent.build import contexts, plan
from agent.build import instructions as steps
from agent.build.build_options import BuildOptions
from agent.build.errors import DockerfileError, raise_together
from agent.build.inputs import Inputs
from agent.build.report import Report
from agent.build.runsteps import RunSteps
from agent.build.selection import MissingError, choose
from agent.errors import BadRequestError
from agent.images.types import Platform


class Job(Protocol):
    """What of a build is looked at."""

    options: BuildOptions
    plan: plan.Plan
    runsteps: RunSteps
    inputs: Inputs
    report: Report

    def steps_before(self, number: int) -> int:
        """The number of steps before those of stage *number*."""

    def stage_platform(self, number: int) -> Platform:
        """What stage *number* is for."""

    def located(self, step: steps.Step) -> AbstractContextManager[None]:
        """Errors in the context get the position of *step*."""


def check(job: Job) -> None:
    """Raises DockerfileError, BadRequestError."""
    mistakes: list[DockerfileError] = []
    for number in job.plan.needed:
        stage = job.plan.stages[number]
        with job.located(stage.origin):
            platform = job.stage_platform(number)
        runs = [step for step in stage.steps if isinstance(step, steps.Run)]
        mistakes += [job.plan.file.error(run.at, why) for run in runs if (why := job.runsteps.refusal(run, platform))]
    raise_together(mistakes)
    for number in job.plan.needed:
        _check_sources(job, number)


def _check_sources(job: Job, number: int) -> None:
    """What stage *number* copies of the context is there. Else its step is reported, as where it is come to."""
    stage = job.plan.stages[number]
    for at, step in enumerate(stage.steps, job.steps_before(number) + 2):
        if not isinstance(step, steps.Copy) or step.origin or any("$" in w for w in step.sources):
            continue
        local = [s for s in step.sources if not (step.add and (contexts.is_url(s) or contexts.repository(s)))]
        with job.located(step):
            try:
                choose(job.inputs.context.listing, local, "/", parents=step.parents, ignored=job.inputs.context.ignored)
            except MissingError as error:
                job.report.channel(number).step(at, job.plan.total, stage, step)
                job.report.failed(number, f"{step.at.word} failed: {error}")
                raise BadRequestError(f"{step.at.word} failed: {error}") from None
