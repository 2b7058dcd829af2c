"""What the doctor says of certificates and proxies."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.contract.container import Container
from orchestrator.ingress.controller import Ingress
from orchestrator.ingress.health import DAY_S, Held, certificate_checks, proxy_checks
from orchestrator.ingress.model import Certificate, IngressSettings, ProxyRow
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import StackRecord
from orchestrator.stackfile.model import IngressRule, Service, Stack
from orchestrator.store.sqlite import SqliteStore

NOW = 1_000 * DAY_S


def held(issuer: str, since: float, until: float, problem: str = "") -> Held:
    """A certificate from *since* to *until*, in days from now."""
    return Held("a.org", issuer, NOW + since * DAY_S, NOW + until * DAY_S, problem)


CASES = {
    "one in the middle of its time is well": (held("acme", -30, 60), True, "acme: it ends in 60 days"),
    "one that is just due is renewed, and well": (held("acme", -61, 29), True, "acme: it ends in 29 days"),
    "one whose renewal is far too late is not": (held("acme", -76, 14), False, "acme: it ends in 14 days"),
    "one of six days is measured by its six days": (held("acme", -3, 3), True, "acme: it ends in 3 days"),
    "why it is not renewed is said": (held("acme", -61, 29, "port 80 is closed"), False, "port 80 is closed; it ends in 29"),
    "one that was never there": (Held("a.org", "internal", 0.0, 0.0, ""), False, "internal: there is none yet"),
    "one that cannot be read": (Held("a.org", "manual", 0.0, 0.0, "no key in it"), False, "manual: no key in it"),
    "one that a person must bring has two weeks": (held("manual", -300, 20), True, "manual: it ends in 20 days"),
    "and then is a finding": (held("manual", -300, 13), False, "manual: it ends in 13 days"),
    "today is a word": (held("manual", -300, 0.5), False, "manual: it ends today"),
    "one that has ended": (held("internal", -40, -1, "clock"), False, "internal: it has ended: clock"),
}


@pytest.mark.parametrize(("one", "ok", "detail"), CASES.values(), ids=CASES)
def test_certificates(one: Held, ok: bool, detail: str) -> None:
    (check,) = certificate_checks([one], NOW)
    assert (check.check, check.target, check.ok) == ("certificate", "a.org", ok)
    assert detail in check.detail
    assert bool(check.fix) is not ok


def test_proxies() -> None:
    rows = [
        ProxyRow(node="n1", task="p-1", state="ready", configured=""),
        ProxyRow(node="n2", task="p-2", state="no answer", configured=""),
    ]
    assert [(c.target, c.ok, c.detail) for c in proxy_checks(rows)] == [
        ("n1: p-1", True, "ready"),
        ("n2: p-2", False, "no answer"),
    ]


async def test_the_doctor_looks_at_what_is_claimed_and_at_nothing_without_ingress(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    plane = ControlPlane(store, "n1", tmp_path / "docker.sock", tmp_path / "run", tmp_path / "keys")
    ingress = Ingress(plane)
    rules = (
        IngressRule(host="a.internal", port=80, where="s:1"),
        IngressRule(host="plain.org", port=80, tls="off", where="s:2"),
    )
    service = Service(name="web", container=Container(image="i"), where="s:1", ingress=rules)
    plane.state.stacks["s"] = StackRecord(stack=Stack(name="s", services=(service,)), revision=1, updated="")
    assert ingress.checks() == []
    ingress.settings = IngressSettings(image="i")
    assert [(c.target, c.ok) for c in ingress.checks()] == [("a.internal", False)]
    ingress.certificates.known["a.internal"] = Certificate(
        host="a.internal", issuer="internal", secret="x", not_before=0.0, not_after=4e9
    )
    assert [(c.target, c.ok) for c in ingress.checks()] == [("a.internal", True)]
    await store.close()
