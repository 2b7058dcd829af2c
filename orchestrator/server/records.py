"""What `up` and `plan` are asked, and what the store keeps of a stack."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from agent.contract.wire import WireStruct
from orchestrator.planning.state import Plan
from orchestrator.stackfile.model import Stack

RolloutVerb = Literal["up", "apply", "sync", "redeploy"]
"""What brings a stack up: a person, a saved plan, a repository, or the cluster itself (drain, rebalance, autoscale)."""
ROLLOUT_VERBS: tuple[RolloutVerb, ...] = get_args(RolloutVerb)


class StackRecord(WireStruct, frozen=True, kw_only=True):
    """A stack as it was applied: when, by which user, why (*message*). *source* is REPOSITORY@COMMIT if git is its source."""

    stack: Stack
    revision: int
    updated: str
    user: str = ""
    message: str = ""
    source: str = ""


class UpOptions(WireStruct, frozen=True, kw_only=True):
    """Options of `up` and `plan`. With *force_deps* what the services need is replaced too, with *no_recreate* nothing that
    is there. *wait*: until all tasks are up; *attached*: only until all were started. *no_start* creates everything and
    starts nothing; *no_tasks* creates only networks and volumes. *conditions_of* names a service that is not brought up
    itself: what its depends_on says is waited for. *again*: tasks that ended well start again, as those that failed do.
    *ignore_orphans*: no word of tasks whose service left the file; those of services that a profile has *left_out* stay as
    they are. *moves* maps tasks to nodes."""

    services: tuple[str, ...] = ()
    scale: dict[str, int] = msgspec.field(default_factory=dict)
    force_recreate: bool = False
    force_deps: bool = False
    no_recreate: bool = False
    remove_orphans: bool = False
    ignore_orphans: bool = False
    left_out: tuple[str, ...] = ()
    no_deps: bool = False
    wait: bool = True
    attached: bool = False
    timeout_s: float | None = None
    pull: str = ""
    no_start: bool = False
    again: bool = False
    no_tasks: bool = False
    conditions_of: str = ""
    renew_volumes: bool = False
    user: str = ""
    message: str = ""
    source: str = ""
    moves: dict[str, str] = msgspec.field(default_factory=dict)
    back: bool = False
    """An update that failed or was given up is taken back: as `rollback_config` says, and without hooks."""


class ActRequest(WireStruct, frozen=True, kw_only=True):
    """*services* is empty for all; so is *tasks*, or it names those of them that alone are meant. *timeout_s* is how long a
    container may take to end, instead of its stop_grace_period. Without *deps*, nothing but these services is started or
    restarted. *begun*: until all were started, and no longer."""

    services: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    timeout_s: float | None = None
    deps: bool = True
    begun: bool = False


class SavedPlan(WireStruct, frozen=True, kw_only=True):
    """A plan, and the stack and options that it was made from."""

    stack: Stack
    options: UpOptions
    plan: Plan
