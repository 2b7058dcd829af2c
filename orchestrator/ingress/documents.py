"""The configuration of each proxy, made of what the cluster is. Proxies that see the same tasks in the same way share one."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from orchestrator.ingress import caddy, haproxy
from orchestrator.ingress.certificates import Certificates
from orchestrator.ingress.model import IngressSettings
from orchestrator.ingress.requests import Requests
from orchestrator.ingress.routes import Claim, Site, claims_of, hosts_to_certify, nodes_apart, sites_for
from orchestrator.server.plane import ControlPlane
from orchestrator.stackfile.certificate_text import CertificateTextError, read_pair
from orchestrator.stackfile.ingress import users_of
from orchestrator.stackfile.model import Stack

log = logging.getLogger(__name__)


class Document(NamedTuple):
    """A configuration as *text*, which task is where it forwards to, and the files of challenges (`caddy.challenge_files`)."""

    text: bytes
    digest: str
    tasks: dict[str, str]
    challenges: dict[str, bytes]


class Documents:
    """Those that were made since the last change."""

    def __init__(self, plane: ControlPlane, certificates: Certificates, requests: Requests) -> None:
        self._plane, self._certificates, self._requests = plane, certificates, requests
        self._made: dict[str, Document] = {}
        """Of nodes of *_apart* by name, and for all others one at ""."""
        self._gates: dict[str, Document] = {}
        self._apart: set[str] = set()

    def begin(self, claims: Iterable[Claim]) -> None:
        """Something may have changed: what was made counts no more."""
        self._made.clear()
        self._gates.clear()
        self._apart = nodes_apart(claims, self._plane.state.tasks.values(), self._plane.state.networks)

    def of_node(self, node: str, settings: IngressSettings) -> Document:
        """What the proxy on *node* must do."""
        key = node if node in self._apart else ""
        if key not in self._made:
            self._made[key] = self._document(node, settings)
        return self._made[key]

    def of_gate(self, node: str, settings: IngressSettings) -> Document:
        """What the HAProxy on *node* must do."""
        key = node if node in self._apart else ""
        if key not in self._gates:
            claims = claims_of(r.stack for r in self._plane.state.stacks.values())
            text, digest = haproxy.configuration(self.sites(node, claims, settings))
            self._gates[key] = Document(text.encode(), digest, {}, {})
        return self._gates[key]

    def _document(self, node: str, settings: IngressSettings) -> Document:
        claims = claims_of(r.stack for r in self._plane.state.stacks.values())
        sites = self.sites(node, claims, settings)
        pairs = {}
        for host in hosts_to_certify(claims, settings):
            if known := self._certificates.pair(host):
                pairs[host] = (known.chain, known.key)
        manual = [pair for claim in claims if (pair := self._manual(claim))]
        unique = dict.fromkeys((*(pairs[h] for h in sorted(pairs)), *manual))
        challenges = self._certificates.challenges.values()
        made = caddy.configuration(sites, unique, challenges, settings, self._seen(settings))
        text = msgspec.json.encode(made)
        if settings.count_requests:
            self._requests.hosts = frozenset(site.rule.host for site in sites if not site.rule.tcp)
        tasks = {u.dial: u.task for site in sites if not site.rule.tcp for u in site.upstreams}
        tasks |= {caddy.waiting_dial(site): site.idle[0] for site in sites if site.idle and not site.upstreams}
        return Document(text, hashlib.sha256(text).hexdigest(), tasks, caddy.challenge_files(challenges))

    def _seen(self, settings: IngressSettings) -> caddy.Seen:
        return "hosts" if settings.count_requests else "requests" if self._requests.wanted else "nothing"

    def sites(self, node: str, claims: list[Claim], settings: IngressSettings) -> list[Site]:
        """What the proxy on *node* answers."""
        state, backends = self._plane.state, self._plane.dispatcher.backends()
        underlays = {m.node.name: m.node.underlay for m in self._plane.cluster.members.values()}
        sites = sites_for(node, claims, settings, state.tasks.values(), state.networks, backends, underlays)
        if not any(s.rule.basic_auth for s in sites):
            return sites
        owners = {c.rule.place: c.stack for c in reversed(claims)}
        return [self._with_users(s, owners) for s in sites]

    def _with_users(self, site: Site, owners: Mapping[str, str]) -> Site:
        if not site.rule.basic_auth:
            return site
        stack = self._plane.state.stacks[owners[site.rule.place]].stack
        content = self.secrets(stack).get(site.rule.basic_auth, b"")
        return site._replace(users=tuple(users_of(content)))

    def _manual(self, claim: Claim) -> tuple[str, str] | None:
        """The chain and the key of a rule with tls: manual."""
        if claim.rule.tls != "manual":
            return None
        content = self.secrets(self._plane.state.stacks[claim.stack].stack).get(claim.rule.secret, b"")
        try:
            pair = read_pair(content)
        except CertificateTextError as error:
            log.warning("%s: %s", claim.rule.where, error)
            return None
        return pair.chain, pair.key

    def secrets(self, stack: Stack) -> dict[str, bytes]:
        """What the secrets of *stack* contain, as far as the server has them, by their keys."""
        named = {key for s in stack.services for rule in s.ingress for key in rule.secrets}
        found: dict[str, bytes] = {}
        for one in stack.contents:
            if one.kind == "secret" and one.key in named:
                content = one.content if one.content is not None else self._plane.contents.read_digest(one.digest)
                if content is not None:
                    found[one.key] = content
        return found
