"""What changes at the cluster's ingress from one revision of a stack to the next. Pure."""

from __future__ import annotations

import msgspec

from orchestrator.planning.state import FieldChange, Step, as_written
from orchestrator.stackfile.model import IngressRule, Stack


def ingress_steps(before: Stack | None, stack: Stack) -> list[Step]:
    """One step for each service whose rules of `x-ingress` differ; nothing is said of their places in the file."""
    old = {s.name: s.ingress for s in before.services} if before else {}
    steps = []
    for service in stack.services:
        was = {r.place: r for r in old.get(service.name, ())}
        now = {r.place: r for r in service.ingress}
        changes = [
            FieldChange(path=f"x-ingress {place}", before=_shown(was.get(place)), after=_shown(now.get(place)))
            for place in dict.fromkeys((*was, *now))
            if _shown(was.get(place)) != _shown(now.get(place))
        ]
        if changes:
            reason = ", ".join(_reason(change, now) for change in changes)
            steps.append(Step(action="update", kind="service", name=service.name, reason=reason, changes=tuple(changes)))
    return steps


def _shown(rule: IngressRule | None) -> dict[str, object] | None:
    """*rule* without its place in the file."""
    return as_written(msgspec.structs.replace(rule, where="")) if rule else None


def _reason(change: FieldChange, now: dict[str, IngressRule]) -> str:
    place = change.path.removeprefix("x-ingress ")
    if change.after is None:
        return f"{place} is no longer answered"
    return f"{place} {'is answered differently' if change.before else f'is answered by port {now[place].port}'}"
