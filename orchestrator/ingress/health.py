"""What `doctor` says of the ingress: certificates that end or cannot be had, proxies without their configuration. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from orchestrator.ingress.model import Certificate, ProxyRow
from orchestrator.server.doctor import Check
from orchestrator.stackfile.certificate_text import CertificateTextError, read_pair

DAY_S = 86_400.0
MANUAL_S = 14 * DAY_S
"""How long before its end a person should bring another certificate."""


class Held(NamedTuple):
    """The certificate of *host* by *issuer* (acme, internal or manual), 0.0 for times of one that is not there; *problem* says
    why it could not be had, or does not do."""

    host: str
    issuer: str
    not_before: float
    not_after: float
    problem: str


def obtained(host: str, issuer: str, known: Certificate | None) -> Held:
    """What the cluster has for *host*."""
    return Held(host, issuer, known.not_before, known.not_after, known.problem) if known else Held(host, issuer, 0.0, 0.0, "")


def brought(host: str, content: bytes) -> Held:
    """What somebody put into a secret for *host*."""
    try:
        pair = read_pair(content, host)
    except CertificateTextError as error:
        return Held(host, "manual", 0.0, 0.0, str(error))
    return Held(host, "manual", pair.not_before.timestamp(), pair.not_after.timestamp(), "")


def certificate_checks(certificates: Iterable[Held], now: float) -> Iterator[Check]:
    """One for each of *certificates*. Those that the cluster obtains are renewed when a third of their time is left; half of
    that later something is wrong, reported or not."""
    for one in certificates:
        left = one.not_after - now
        days = math.floor(left / DAY_S)
        ends = f"it ends in {days} days" if days else "it ends today"
        late = MANUAL_S if one.issuer == "manual" else (one.not_after - one.not_before) / 6
        ok, detail = not one.problem and left >= late, ends
        if not one.not_after:
            ok, detail = False, one.problem or "there is none yet"
        elif left < 0:
            detail = f"it has ended: {one.problem}" if one.problem else "it has ended"
        elif one.problem:
            detail = f"{one.problem}; {ends}"
        fix = {
            "manual": "put another one into its secret: the chain and the key as PEM",
            "acme": "see that port 80 of the host leads to a node, or the DNS hook works; it is tried again by itself",
        }.get(one.issuer, "see the server's log; it is tried again by itself")
        yield Check(check="certificate", target=one.host, ok=ok, detail=f"{one.issuer}: {detail}", fix="" if ok else fix)


def proxy_checks(proxies: Iterable[ProxyRow]) -> Iterator[Check]:
    """One for each of *proxies*."""
    for one in proxies:
        ok = one.state == "ready"
        fix = "" if ok else "see `pystack logs -p pystack-ingress`, and whether the node answers"
        yield Check(check="ingress", target=f"{one.node}: {one.task}", ok=ok, detail=one.state, fix=fix)
