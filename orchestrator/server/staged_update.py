"""Canary and blue-green: tasks of the new definition stand beside the old ones and get their part of the connections, before
any old one is touched. What shows there takes the update back, and nothing has changed.

Source: Argo Rollouts, canary and blue-green strategies; the weights are shares of buckets of the service's address.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from agent.contract.task import Task
from orchestrator.errors import PystackError
from orchestrator.server.rolling_update import UpdateActions, UpdateOutcome, WaitStable, exchange_all, watch_all
from orchestrator.stackfile.model import Service, UpdateConfig
from orchestrator.stackfile.workloads import CanaryStep, StagedUpdate

Down = Callable[[Sequence[Task]], str | None]
"""Why one of these tasks does not serve any more, None while all do."""


async def update_staged(
    service: Service,
    staged: StagedUpdate,
    before: Mapping[str, Task],
    after: Sequence[Task],
    actions: UpdateActions,
    wait_stable: WaitStable,
    down: Down,
) -> UpdateOutcome:
    """Replace the tasks *before*, by name, with those *after*, once further tasks have shown that the new definition serves."""
    blue_green = staged.strategy == "blue-green"
    steps = (CanaryStep(weight=100.0, hold_s=staged.hold_s),) if blue_green else staged.steps
    surge: list[Task] = []

    def worse() -> str | None:
        return down(surge) or traffic.surely_bad()

    try:
        async with actions.observed(staged.abort_on) as traffic:
            for number, step in enumerate(steps, 1):
                count = len(after) if blue_green else max(1, math.ceil(len(after) * step.weight / 100))
                known = {t.name for t in surge}
                surge = await actions.surge(service.name, count, share=0.0 if not surge else steps[number - 2].weight)
                reasons = await watch_all(
                    [t for t in surge if t.name not in known], service.update or UpdateConfig(), wait_stable
                )
                if not reasons:
                    traffic.begin(frozenset(t.name for t in surge))
                    await actions.weigh(surge, step.weight)
                    words = f"{service.name}: step {number} of {len(steps)}, {step.weight:g}% for {step.hold_s:g} s"
                    found = await actions.hold(step.hold_s, words, worse) or traffic.bad()
                    if traffic.blind and step.hold_s:
                        actions.warn(f"{service.name}: no request came to the new tasks: abort_on says nothing of them")
                    if not found and staged.analysis:
                        found = await actions.analyse(service, staged.analysis)
                    reasons = {surge[0].name: found} if found else {}
                if reasons:
                    actions.warn(
                        f"{service.name}: the update is taken back at {step.weight:g}%: {next(iter(reasons.values()))}"
                    )
                    return UpdateOutcome(reasons=reasons, kept=tuple(before))
        pace = service.update or UpdateConfig()
        if blue_green:
            pace = UpdateConfig(parallelism=0, monitor_s=pace.monitor_s, failure_action=pace.failure_action)
        else:
            await actions.weigh(surge, -1.0)
        done, reasons = await exchange_all(after, pace, actions, wait_stable)
        names = {t.name for t in done}
        return UpdateOutcome(reasons=reasons, kept=tuple(t.name for t in after if t.name not in names))
    except PystackError as error:
        if surge:
            raise
        return UpdateOutcome(reasons={f"{after[0].name}": f"no room beside it: {error}"}, kept=tuple(before))
    finally:
        if surge:
            await actions.remove_surge(surge)
