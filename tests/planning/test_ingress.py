"""What a plan says of the cluster's ingress: one step for each service whose rules differ, and why."""

from __future__ import annotations

import pytest

from agent.contract.container import Container
from orchestrator.planning.ingress import ingress_steps
from orchestrator.stackfile.model import IngressRule, Service, Stack


def stack(**rules: tuple[IngressRule, ...]) -> Stack:
    return Stack(
        name="s",
        services=tuple(Service(name=n, container=Container(image="x"), where=n, ingress=r) for n, r in rules.items()),
    )


def rule(
    host: str = "a.b", port: int = 80, path: str = "/", where: str = "s.yml:1:1", *, compress: bool = False
) -> IngressRule:
    return IngressRule(host=host, port=port, path=path, where=where, compress=compress)


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        ((), (), []),
        ((rule(),), (rule(where="s.yml:9:9"),), []),
        ((), (rule(),), ["a.b/ is answered by port 80"]),
        ((rule(),), (rule(port=81),), ["a.b/ is answered differently"]),
        ((rule(),), (rule(compress=True),), ["a.b/ is answered differently"]),
        ((rule(),), (), ["a.b/ is no longer answered"]),
        ((rule(),), (rule(path="/x"),), ["a.b/ is no longer answered, a.b/x is answered by port 80"]),
        ((rule(), rule("c.d")), (rule("c.d"), rule()), []),
    ],
)
def test_a_step_has_a_reason_for_each_place(
    before: tuple[IngressRule, ...], after: tuple[IngressRule, ...], reasons: list[str]
) -> None:
    steps = ingress_steps(stack(web=before), stack(web=after))
    assert [s.reason for s in steps] == reasons
    assert all((s.kind, s.name, s.action) == ("service", "web", "update") for s in steps)


def test_a_stack_that_is_new_and_a_service_that_is_new_have_no_past() -> None:
    new = stack(web=(rule(),), api=())
    assert [s.name for s in ingress_steps(None, new)] == ["web"]
    assert [s.name for s in ingress_steps(stack(api=()), new)] == ["web"]


def test_changes_have_no_places() -> None:
    [step] = ingress_steps(None, stack(web=(rule(),)))
    [change] = step.changes
    assert (change.path, change.before) == ("x-ingress a.b/", None)
    assert isinstance(change.after, dict)
    assert "where" not in change.after
