"""How many replicas a service should have for what they use. Pure: the use of each task and the time go in.

Source: Kubernetes, "Horizontal Pod Autoscaling", algorithm details and configurable scaling behaviour: the ratio of use to
target with a dead band; tasks whose use is not known count against the change; the largest recommendation of all targets; the
most cautious one of a window; and a limit of change in a period.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from agent.contract.wire import WireStruct
from orchestrator.stackfile.workloads import Scale, ScaleDirection

TOLERANCE = 0.1


class ScaleMemory(WireStruct, frozen=True, kw_only=True):
    """What is kept of earlier turns: recommendations and changes, each with its time in seconds since the epoch. While it is
    *paused* nothing is decided. *reason* explains the last decision."""

    recommended: tuple[tuple[float, int], ...] = ()
    changed: tuple[tuple[float, int], ...] = ()
    paused: bool = False
    reason: str = ""


class ScaleDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The number of *replicas* from now on, and what to keep for the next turn."""

    replicas: int
    memory: ScaleMemory


def recommend(current: int, used: Sequence[float | None], target: float) -> int:
    """The number of replicas at which each would use *target* percent; *used* has the percentage of each of the *current* ones,
    None where it is not known."""
    known = [u for u in used if u is not None]
    if not known or not current:
        return current
    ratio = sum(known) / len(known) / target
    if abs(ratio - 1) <= TOLERANCE:
        return current
    if unknown := len(used) - len(known):
        # those that say nothing are taken for idle where there would be more, and for at their target where there would be
        # fewer
        filled = (sum(known) + (0.0 if ratio > 1 else unknown * target)) / len(used) / target
        if abs(filled - 1) <= TOLERANCE or (filled > 1) != (ratio > 1):
            return current
        ratio = filled
    return math.ceil(round(ratio * len(used), 9))


def recommend_for(current: int, total: float, target: float) -> int:
    """The number of replicas of which each has *target* of what is *total* for all of them; there may be none yet."""
    if current and abs(total / current / target - 1) <= TOLERANCE:
        return current
    return math.ceil(round(total / target, 9))


def decide(
    scale: Scale,
    memory: ScaleMemory,
    now: float,
    current: int,
    used: Mapping[str, Sequence[float | None]],
    totals: Mapping[str, float | str] = {},
) -> ScaleDecision:
    """The number of replicas for *used*: for each target, by its name (cpu, memory), what each of the *current* replicas uses
    of it in percent; and for *totals*: what there is of it for all of them (rps, query), or why nobody knows. What is not known
    asks for as many as there are, so that no other target takes replicas away. Source: as above, "missing metrics"."""
    if memory.paused:
        return ScaleDecision(replicas=current, memory=memory)
    targets = {"cpu": scale.cpu, "memory": scale.memory, "rps": scale.rps, "query": scale.query.value if scale.query else 0.0}
    found = {name: recommend(current, values, targets[name]) for name, values in used.items() if targets[name]}
    for name, total in totals.items():
        found[name] = current if isinstance(total, str) else recommend_for(current, total, targets[name])
    raw = max(found.values(), default=current)
    longest = max(scale.up.stabilise_s, scale.down.stabilise_s)
    recommended = (*((at, n) for at, n in memory.recommended if now - at <= longest), (now, raw))
    lowest = min([n for at, n in recommended if now - at <= scale.up.stabilise_s] or [raw])
    highest = max([n for at, n in recommended if now - at <= scale.down.stabilise_s] or [raw])
    wanted = max(lowest, min(current, highest))
    reasons = [
        _words(name, used[name], targets[name], n) if name in used else _total_words(name, totals[name], targets[name], n)
        for name, n in found.items()
    ]
    if wanted != raw:
        reasons.append(f"{wanted} is the most cautious of the last {_window(scale, raw, current):g} s")
    limited = _limit(scale, memory, now, current, wanted)
    if limited != wanted:
        reasons.append(f"no more than to {limited} at once")
    replicas = max(scale.least, min(scale.most, limited))
    if replicas != limited:
        reasons.append(f"{'min' if replicas > limited else 'max'} is {replicas}")
    longest = max(scale.up.period_s, scale.down.period_s)
    changed = tuple((at, delta) for at, delta in memory.changed if now - at < longest)
    if replicas != current:
        changed += ((now, replicas - current),)
    reason = f"{current} → {replicas}: {'; '.join(reasons) or 'nothing is known of its use'}"
    kept = msgspec.structs.replace(memory, recommended=recommended, changed=changed, reason=reason)
    return ScaleDecision(replicas=replicas, memory=kept)


def _limit(scale: Scale, memory: ScaleMemory, now: float, current: int, wanted: int) -> int:
    """*wanted*, or as far from *current* as the rate of change allows."""
    up = wanted > current
    rate = scale.up if up else scale.down
    recent = sum(delta for at, delta in memory.changed if now - at < rate.period_s and (delta > 0) == up)
    start = current - recent  # what there was when the period began
    if up:
        return min(wanted, max(current, max(math.ceil(start * (1 + rate.percent / 100)), start + rate.tasks)))
    return max(wanted, min(current, min(_floor(start, rate), start - rate.tasks)))


def _floor(start: int, rate: ScaleDirection) -> int:
    return math.ceil(round(start * (1 - rate.percent / 100), 9))


def _window(scale: Scale, raw: int, current: int) -> float:
    return scale.up.stabilise_s if raw > current else scale.down.stabilise_s


def _words(name: str, used: Sequence[float | None], target: float, wanted: int) -> str:
    known = [u for u in used if u is not None]
    mean = f"{sum(known) / len(known):.0f}%" if known else "unknown"
    return f"{name} is at {mean} of {target:g}%, which asks for {wanted}"


def _total_words(name: str, total: float | str, target: float, wanted: int) -> str:
    if isinstance(total, str):
        return f"{name} is not known: {total}"
    return f"{name} is {total:.6g}, {target:g} for each, which asks for {wanted}"
