"""What a stack file says of work that ends, or that runs at certain times: `x-job` and `x-schedule`."""

from __future__ import annotations

from typing import Literal

from agent.contract.container import Hook
from agent.contract.wire import WireStruct

JOBS = ("replicated-job", "global-job")
"""The values of `deploy.mode` whose tasks run to their ends."""


class Job(WireStruct, frozen=True, kw_only=True):
    """`x-job`: *max_concurrent* tasks run at a time, 0 is all of them. The last *keep* runs are remembered with what they said.
    A run that has not ended *deadline_s* after it began is stopped and has failed; 0 is never."""

    max_concurrent: int = 0
    keep: int = 10
    deadline_s: float = 0.0


class Schedule(WireStruct, frozen=True, kw_only=True):
    """`x-schedule`: a run of the service each time that *cron* says, by the clock of *timezone*.

    *concurrency* says what becomes of a run whose predecessor still runs: it is left out (forbid), runs beside it (allow), or
    in its place (replace). *missed* says what becomes of times at which nobody could begin it: the last one is made up for
    (run-once), or none (skip). A run that cannot begin *deadline_s* after its time is missed; 0 is never too late. The last
    *history* runs are remembered."""

    cron: str
    timezone: str = "UTC"
    concurrency: Literal["forbid", "allow", "replace"] = "forbid"
    missed: Literal["run-once", "skip"] = "run-once"
    deadline_s: float = 0.0
    history: int = 10


class BackupCommand(WireStruct, frozen=True, kw_only=True):
    """What runs in a task of *service* before a volume is read, or after."""

    service: str
    hook: Hook


class Backup(WireStruct, frozen=True, kw_only=True):
    """`x-backup` of a volume: at the times of *schedule* its content goes to the repository *place* (in restic's words), and a
    backup is brought back to the side, and compared, at those of *verify*; None is never. *keep* are rules of what stays.

    *password*, *credentials*, *ssh_key*, *known_hosts* and *rclone* are keys of secrets. With *pause* those who use the volume
    stand still while it is read. *where* is its place in the file."""

    place: str
    password: str
    credentials: str = ""
    ssh_key: str = ""
    known_hosts: str = ""
    rclone: str = ""
    schedule: Schedule | None = None
    verify: Schedule | None = None
    keep: tuple[tuple[str, int], ...] = ()
    before: BackupCommand | None = None
    after: BackupCommand | None = None
    pause: bool = False
    where: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys of the secrets that it names."""
        return tuple(s for s in (self.password, self.credentials, self.ssh_key, self.known_hosts, self.rclone) if s)


class DeployHook(WireStruct, frozen=True, kw_only=True):
    """A command in a container of the service's own, in *image* or in the service's; it fails after *deadline_s*, 0 is
    never."""

    hook: Hook
    image: str = ""
    deadline_s: float = 0.0


class Hooks(WireStruct, frozen=True, kw_only=True):
    """`x-hooks`: what runs once before, and once after, the service's tasks are exchanged for those of a new definition."""

    pre_deploy: DeployHook | None = None
    post_deploy: DeployHook | None = None


class CanaryStep(WireStruct, frozen=True, kw_only=True):
    """For *hold_s* seconds *weight* percent of new connections go to tasks of the new definition."""

    weight: float
    hold_s: float = 0.0


class AbortOn(WireStruct, frozen=True, kw_only=True):
    """What of the requests to new tasks takes an update back: more than *error_rate* percent of them fail, or one in a hundred
    takes longer than *p99_s*; 0: not looked at. Ingress sees them."""

    error_rate: float = 0.0
    p99_s: float = 0.0


class StagedUpdate(WireStruct, frozen=True, kw_only=True):
    """`x-update`: canary, a few tasks of the new definition get a part of the connections, in *steps*; or blue-green, as many
    as there are get all of them, and the old ones stay for *hold_s*. An analysis is run at the end of each step; *abort_on*
    takes the update back at any time of it."""

    strategy: Literal["canary", "blue-green"]
    steps: tuple[CanaryStep, ...] = ()
    hold_s: float = 0.0
    analysis: DeployHook | None = None
    abort_on: AbortOn = AbortOn()


class ScaleDirection(WireStruct, frozen=True, kw_only=True):
    """How fast replicas come, or go: for *stabilise_s* the most cautious recommendation counts; within *period_s* so many
    change as *percent* of them or *tasks* are, whichever is more."""

    stabilise_s: float
    percent: float
    tasks: int
    period_s: float


class ScaleQuery(WireStruct, frozen=True, kw_only=True):
    """As many replicas as the result of *promql* has *value* in it. *where* is its place in the file."""

    promql: str
    value: float = 1.0
    where: str = ""


class Scale(WireStruct, frozen=True, kw_only=True):
    """`x-scale`: from *least* to *most* replicas, so that each uses *cpu* percent of its cores and *memory* percent of its
    memory, and gets *rps* requests a second by ingress; 0: no target."""

    least: int
    most: int
    cpu: float = 0.0
    memory: float = 0.0
    rps: float = 0.0
    query: ScaleQuery | None = None
    up: ScaleDirection = ScaleDirection(stabilise_s=0.0, percent=100.0, tasks=4, period_s=15.0)
    down: ScaleDirection = ScaleDirection(stabilise_s=300.0, percent=100.0, tasks=0, period_s=15.0)
