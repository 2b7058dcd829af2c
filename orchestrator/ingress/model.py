"""What the store keeps of ingress, and what its API answers with."""

from __future__ import annotations

from collections.abc import Set
from typing import Literal, NamedTuple

import msgspec

from agent.contract.wire import WireStruct

STACK = "pystack-ingress"
"""The system stack of the proxies."""
SERVICE = "proxy"
GATE = "gate"
"""The service of the HAProxys, where `ingress up` was asked for them."""
NOBODY = ".none"
"""The end of the names of sockets at which nobody listens: requests to them wait for a task."""
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
Issuer = Literal["acme", "internal"]
ChallengeType = Literal["http-01", "tls-alpn-01"]


class Challenge(NamedTuple):
    """What proxies answer the ACME server that asks for *host*: the key authorization *answer* to *token*.

    Source: RFC 8555, 8.3 (HTTP-01), RFC 8737 (TLS-ALPN-01)."""

    type: ChallengeType
    host: str
    token: str
    answer: str


class IngressSettings(WireStruct, frozen=True, kw_only=True):
    """The options of `pystack ingress up`. *constraints* choose the nodes, as in `deploy.placement.constraints`; *version* is
    that of the Debian package in *image*. *issuer* certifies where a rule does not say. *directory* is the ACME server's,
    *trusted* the PEM of the roots that it is trusted by ("" for the host's own), *eab_key_id* and the secret *eab_key* bind
    the account to one that exists there (RFC 8555 §7.3.4); *dns_hook* is a program of the servers for DNS-01, which goes
    before *challenge*.
    *gate* is the image of the HAProxys, "" for none; with *count_requests* proxies say of each request what became of it."""

    image: str
    version: str = ""
    constraints: tuple[str, ...] = ()
    http_port: int = 80
    https_port: int = 443
    issuer: Issuer = "internal"
    email: str = ""
    directory: str = LETS_ENCRYPT
    trusted: str = ""
    eab_key_id: str = ""
    eab_key: str = ""
    dns_hook: str = ""
    challenge: ChallengeType = "http-01"
    gate: str = ""
    count_requests: bool = False

    def keeping(self, stored: IngressSettings | None, names: Set[str]) -> IngressSettings:
        """These, but those of *names* as they are *stored*, if anything is."""
        if stored is None:
            return self
        return msgspec.structs.replace(self, **{name: getattr(stored, name) for name in names})

    def changes_since(self, stored: IngressSettings) -> list[str]:
        """A line for each setting that is another one in *stored*; what is long is only named."""
        out = []
        for name in self.__struct_fields__:
            before, now = getattr(stored, name), getattr(self, name)
            if before != now:
                out.append(f"{name} changed" if name == "trusted" else f"{name}: {_shown(before)} → {_shown(now)}")
        return out


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "none" if value == "" else str(value).lower() if isinstance(value, bool) else str(value)


class Certificate(WireStruct, frozen=True, kw_only=True):
    """A certificate that the control plane obtained, or wants: the chain and the key are in the cluster's secret *secret*, ""
    until there is one. Times are seconds since 1970. *problem* says why the last try failed, *failures* how many did in a row;
    the next one is not before *retry_at*."""

    host: str
    issuer: Issuer
    secret: str = ""
    not_before: float = 0.0
    not_after: float = 0.0
    problem: str = ""
    failures: int = 0
    retry_at: float = 0.0

    @property
    def key(self) -> str:
        """The key in the store."""
        return f"ingress/certificates/{self.host}"

    def due(self, now: float) -> bool:
        """Whether it is to be obtained, for the first time or because a third of its time is left."""
        if now < self.retry_at:
            return False
        return not self.secret or now >= self.not_after - (self.not_after - self.not_before) / 3


class RouteRow(WireStruct, frozen=True, kw_only=True, omit_defaults=False):
    """One row of `pystack ingress ls`. *expires* is when the certificate ends, "" for none; *state* is ok, or what is wrong."""

    host: str
    path: str
    stack: str
    service: str
    port: int
    tls: str
    tasks: int
    expires: str
    state: str
    where: str


class ProxyRow(WireStruct, frozen=True, kw_only=True, omit_defaults=False):
    """A proxy: *state* is ready, or why it does not have the present configuration."""

    node: str
    task: str
    state: str
    configured: str


class Overview(WireStruct, frozen=True, kw_only=True, omit_defaults=False):
    """The answer of `GET /v1/ingress`."""

    settings: IngressSettings
    proxies: tuple[ProxyRow, ...]
    routes: tuple[RouteRow, ...]
