"""Keeps every proxy of the cluster configured: what the cluster is, compared with what each proxy was last given."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Set

import msgspec

from agent.contract.task import Task
from agent.contract.times import timestamp, timestamp_if_set
from orchestrator.errors import PystackError, RefusedError
from orchestrator.ingress import caddy, files, gates
from orchestrator.ingress.certificates import Certificates
from orchestrator.ingress.documents import Documents
from orchestrator.ingress.health import Held, brought, certificate_checks, obtained, proxy_checks
from orchestrator.ingress.model import GATE, SERVICE, STACK, IngressSettings, Overview, ProxyRow, RouteRow
from orchestrator.ingress.requests import Requests
from orchestrator.ingress.routes import (
    Claim,
    Site,
    claims_of,
    conflicts,
    gateless,
    hosts_to_certify,
    issuer_of,
    port_conflicts,
    unseen,
)
from orchestrator.ingress.spread import Spread
from orchestrator.ingress.system_stack import system_stack
from orchestrator.planning.manifests import ingress_ports
from orchestrator.server import lifecycle
from orchestrator.server.doctor import Check
from orchestrator.server.events import Emit, Failure, WarningEvent
from orchestrator.server.plane import ControlPlane
from orchestrator.server.records import UpOptions
from orchestrator.server.statuses import may_serve
from orchestrator.stackfile.ingress import secret_problems
from orchestrator.stackfile.model import Stack
from orchestrator.store.interface import Delete, Put
from orchestrator.transport.agent_client import AgentClient

SETTINGS = "ingress/settings"
FOLLOW_S = 3.0
"""How long a change of tasks waits for proxies that do not answer."""
CERTIFICATE_S = 100.0
"""How long `up` waits for a certificate of the stack."""
RETRY_S = 1.0
LINGER_S = 1.0
TAKEN_S, AGAIN_S = 10.0, 0.2
"""How long `up` waits for proxies to take what it claims, and how long it waits between two attempts."""
NOBODY = ("off", "passthrough")
"""In place of an issuer, where the cluster has no certificate to look after."""
log = logging.getLogger(__name__)


async def _load(client: AgentClient, container: str, document: bytes) -> None:
    """Give the Caddy in *container* its configuration. Raises PystackError."""
    path, headers = f"/pystack/containers/{container}/http/load", {"Content-Type": "application/json"}
    await client.call("POST", path, params={"socket": caddy.ADMIN_SOCKET}, data=document, headers=headers)


async def _show(client: AgentClient, container: str, challenges: Mapping[str, bytes]) -> None:
    """Give the Caddy in *container* the files of *challenges*. Those that it has from before stay until none is under way:
    taken away one by one, others would be missing for a moment. Raises PystackError."""
    if challenges:
        await files.put(client, container, caddy.FOLDER, challenges)
    else:
        await files.empty(client, container, caddy.FOLDER, caddy.STORAGE)


class Proxy(msgspec.Struct):
    """What is known of a proxy: *start* names the container and its start, *digest* the configuration that it has, *shown* the
    files of challenges."""

    start: str = ""
    digest: str = ""
    problem: str = ""
    configured: str = ""
    shown: dict[str, bytes] = {}


class Ingress:
    """*settings* is None while the cluster has no ingress."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.settings: IngressSettings | None = None
        self.certificates = Certificates(plane.store, plane.contents, self.push, self.trigger)
        self.proxies: dict[str, Proxy] = {}
        self.requests = Requests(self.push, self.trigger, lambda: self.settings is not None)
        self.documents = Documents(plane, self.certificates, self.requests)
        self._spread = Spread(plane)
        self._wake = asyncio.Event()
        self._locks: dict[str, asyncio.Lock] = {}
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the store, and follow the cluster. Raises StoreError."""
        found = await self.plane.store.get(SETTINGS)
        self.settings = msgspec.json.decode(found.value, type=IngressSettings) if found else None
        await self.certificates.load()
        self.plane.planner.checks.append(self.check)
        self.plane.executor.finishers.append(self.finish)
        self.plane.executor.requests = self.plane.autoscaler.figures.requests = self.requests
        self.plane.cluster.followers.append(self.follow)
        self.plane.dispatcher.lingerers.append(self.linger_s)
        self._loop = asyncio.create_task(self._run(), name="ingress")
        self._spread.start()

    # --- what is asked of it -------------------------------------------------------------------------------------

    async def up(self, settings: IngressSettings, emit: Emit) -> list[Failure]:
        """Run the proxies by *settings*. Raises RefusedError, PystackError."""
        ports = {settings.http_port, settings.https_port}
        taken = [
            f"port {p.published} is published by service {t.service} of stack {t.stack}"
            for t in self.plane.state.tasks.values()
            for p in (*ingress_ports(t), *(p for p in t.container.ports if p.mode == "host"))
            if p.published in ports and p.protocol == "tcp"
        ]
        if taken:
            raise RefusedError(f"{'; '.join(sorted(set(taken)))}: choose others with --http-port and --https-port", 409)
        if not settings.gate and (wrong := [w for r in self.plane.state.stacks.values() for w in gateless(r.stack)]):
            raise RefusedError("\n".join(wrong), 409)
        if self.settings and (changes := settings.changes_since(self.settings)):
            emit(WarningEvent(message=f"ingress: {'; '.join(changes)}"))
        await self.plane.store.transact((), [Put(SETTINGS, msgspec.json.encode(settings))])
        self.settings = settings
        failures = await self.plane.rollouts.up(system_stack(settings), UpOptions(pull="never", timeout_s=60.0), emit)
        await self.push()
        return failures

    async def down(self, emit: Emit) -> list[Failure]:
        """Stop the proxies. Certificates stay in the store, for the next time."""
        failures = await lifecycle.down(self.plane.dispatcher, STACK, volumes=False, emit=emit)
        await self.plane.store.transact((), [Delete(SETTINGS)])
        self.settings = None
        self.proxies.clear()
        return failures

    def need_settings(self) -> IngressSettings:
        """Raises RefusedError (404) while there is no ingress."""
        if self.settings is None:
            raise RefusedError("the cluster has no ingress yet: `pystack ingress up`", 404)
        return self.settings

    # --- hooks of the control plane ------------------------------------------------------------------------------

    def check(self, stack: Stack) -> list[str]:
        """What `plan` has against *stack*: hosts and paths of others, ports of the proxies, secrets that do not do."""
        if not any(s.ingress for s in stack.services) and self.settings is None:
            return []
        others = [r.stack for r in self.plane.state.stacks.values()]
        wrong = conflicts(stack, others)
        contents = self.documents.secrets(stack)
        if self.settings:
            wrong += port_conflicts(stack, self.settings, others) + ([] if self.settings.gate else gateless(stack))
        else:
            wrong += unseen(stack, self.plane.state.stacks.get(stack.name))
        for service in stack.services:
            for rule in service.ingress:
                for key, (why, fix) in secret_problems(rule, contents):
                    wrong.append(f"{rule.where}: services.{service.name}.x-ingress.{key}: {why}\n    → {fix}")
        return wrong

    async def finish(self, stack: Stack, options: UpOptions, emit: Emit) -> list[Failure]:
        """Wait until what *stack* claims is answered, with certificates. Returns what is not."""
        claims = claims_of([stack])
        if not claims:
            return []
        if self.settings is None:
            emit(WarningEvent(message="x-ingress: nothing answers for it yet: run `pystack ingress up`"))
            return []
        await self.push()
        hosts = hosts_to_certify(claims, self.settings)
        await self.certificates.wait(hosts, min(CERTIFICATE_S, options.timeout_s or CERTIFICATE_S))
        for node, why in (await self._push_to_all(min(TAKEN_S, options.timeout_s or TAKEN_S))).items():
            emit(WarningEvent(message=f"x-ingress: the proxy on {node} does not have it yet: {why}"))
        failures = []
        for claim in claims:
            one = self.certificates.known.get(claim.rule.host)
            if claim.rule.host in hosts and (one is None or not one.secret):
                hosts.pop(claim.rule.host)
                reason = f"no certificate for {claim.rule.host}: {one.problem if one and one.problem else 'not in time'}"
                failures.append(Failure(task=f"{stack.name}-{claim.service}", where=claim.rule.where, reason=reason))
        return failures

    async def _push_to_all(self, within_s: float) -> dict[str, str]:
        """Push until all proxies on nodes that answer have it. Returns why not, by node, of those that do not in time."""
        end = time.monotonic() + within_s
        while True:
            await self.push()
            left = {}
            for task in self.plane.state.tasks.values():
                proxy, member = self.proxies.get(task.name), self.plane.cluster.members.get(task.node)
                if proxy and member and member.ready and task.desired == "running" and not proxy.digest:
                    left[task.node] = proxy.problem or "it does not run yet"
            if not left or time.monotonic() > end:
                return left
            await asyncio.sleep(AGAIN_S)

    async def follow(self) -> None:
        """Who answers for a service changed: give the proxies that answer the new lists. Raises nothing."""
        if self.settings is None:
            return
        try:
            async with asyncio.timeout(FOLLOW_S):
                await self.push()
        except TimeoutError:
            self.trigger()

    def linger_s(self, names: Set[str]) -> float:
        """How long requests may still come to the tasks *names*: those on connections that a proxy accepted before it had a new
        configuration, and that are read only now, go by the old one."""
        tasks = self.plane.state.tasks
        claimed = {(c.stack, c.service) for c in claims_of(r.stack for r in self.plane.state.stacks.values())}
        return LINGER_S if self.settings and any((tasks[n].stack, tasks[n].service) in claimed for n in names) else 0.0

    def trigger(self) -> None:
        """Look at everything soon."""
        self._wake.set()

    # --- the proxies -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            pause = 3600.0
            try:
                if self.settings:
                    await self.push()
                    pause = self.certificates.next_due_s(time.time())
                    if any(p.problem for p in self.proxies.values()):
                        pause = RETRY_S
            except PystackError as error:
                log.warning("ingress: %s", error)
                pause = RETRY_S
            except Exception:
                log.exception("ingress")
                pause = RETRY_S
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def push(self) -> None:
        """Give each proxy that runs the present configuration; return when those that answer have it."""
        if self.settings is None:
            return
        self.requests.counting = self.settings.count_requests
        claims = list(claims_of(r.stack for r in self.plane.state.stacks.values()))
        await self.certificates.ensure(hosts_to_certify(claims, self.settings), self.settings)
        running = {t.name: t for t in self.plane.state.tasks.values() if t.stack == STACK}
        for gone in self.proxies.keys() - running.keys():
            del self.proxies[gone]
        self.requests.keep({t.node for t in running.values() if t.service == SERVICE})
        self.documents.begin(claims)
        await asyncio.gather(*(self._configure(t) for t in running.values()))

    async def _configure(self, task: Task) -> None:
        status = self.plane.statuses.by_task.get(task.name)
        member = self.plane.cluster.members.get(task.node)
        proxy = self.proxies.setdefault(task.name, Proxy())
        if status is None or not may_serve(status) or member is None or not member.ready:
            proxy.problem = ""
            proxy.digest = ""
            return
        async with self._locks.setdefault(task.name, asyncio.Lock()):
            settings = self.settings
            if settings is None:
                return
            # made only now: of the calls that waited for the one before, the first brings what all of them know
            of = self.documents.of_gate if task.service == GATE else self.documents.of_node
            document, digest, tasks, challenges = of(task.node, settings)
            start = f"{status.container} {status.started}"
            if task.service != GATE:
                self.requests.tasks[task.node] = tasks
            if proxy.start != start:
                proxy.start, proxy.digest, proxy.shown = start, "", {}
            if (proxy.digest, proxy.shown) == (digest, challenges):
                return
            try:
                if proxy.shown != challenges:
                    await _show(member.client, status.container, challenges)
                    proxy.shown = challenges
                if proxy.digest == digest:
                    return
                if task.service == GATE:
                    await gates.deliver(member.client, status.container, document, digest)
                else:
                    self.requests.follow(member.client, status.container)
                    await _load(member.client, status.container, document)
            except PystackError as error:
                proxy.problem, proxy.digest = str(error), ""
                self.trigger_later()
                return
            proxy.digest, proxy.problem = digest, ""
            proxy.configured = timestamp(digits="milliseconds")

    def trigger_later(self) -> None:
        """Look at everything in a while: a proxy did not take its configuration."""
        asyncio.get_running_loop().call_later(RETRY_S, self.trigger)

    # --- to be seen ----------------------------------------------------------------------------------------------

    def overview(self) -> Overview:
        """Everything that is answered, and by which proxies. Raises RefusedError (404) while there is no ingress."""
        settings = self.need_settings()
        claims = claims_of(r.stack for r in self.plane.state.stacks.values())
        sites = {s.rule.place: s for s in self.documents.sites(self.plane.node, claims, settings)}
        return Overview(
            settings=msgspec.structs.replace(settings, trusted=""),
            proxies=tuple(self._proxy_row(t) for t in self.plane.state.tasks.values() if t.stack == STACK),
            routes=tuple(self._route_row(c, sites.get(c.rule.place), settings) for c in claims),
        )

    def _proxy_row(self, task: Task) -> ProxyRow:
        proxy = self.proxies.get(task.name, Proxy())
        silent = self.plane.cluster.unreachable_reason(task.node)
        state = silent or proxy.problem or ("ready" if proxy.digest else "not configured yet")
        return ProxyRow(node=task.node, task=task.name, state=state, configured=proxy.configured)

    def _route_row(self, claim: Claim, site: Site | None, settings: IngressSettings) -> RouteRow:
        held = self._held(claim, settings)
        until, tls = held.not_after, held.issuer
        problem = held.problem or ("no certificate yet" if tls in ("acme", "internal") and not until else "")
        ready = site.upstreams if site else ()
        if not problem and not ready and not claim.rule.maintenance:
            problem = "no task is ready"
        expires = timestamp_if_set(until)
        return RouteRow(
            host=claim.rule.host,
            path=f":{claim.rule.tcp}" if claim.rule.tcp else claim.rule.path,
            stack=claim.stack,
            service=claim.service,
            port=claim.rule.port,
            tls=tls,
            tasks=len(ready),
            expires=expires,
            state=problem or "ok",
            where=claim.rule.where,
        )

    def _held(self, claim: Claim, settings: IngressSettings) -> Held:
        """The certificate for what is claimed."""
        tls, host = issuer_of(claim.rule, settings), claim.rule.host
        if tls == "manual":
            return brought(host, self.documents.secrets(self.plane.state.stacks[claim.stack].stack).get(claim.rule.secret, b""))
        return obtained(host, tls, self.certificates.known.get(host))

    def checks(self) -> list[Check]:
        """Its part of `pystack doctor`; nothing while the cluster has no ingress."""
        if (settings := self.settings) is None:
            return []
        claims = claims_of(r.stack for r in self.plane.state.stacks.values())
        held = {one.host: one for c in claims if (one := self._held(c, settings)).issuer not in NOBODY}
        proxies = (self._proxy_row(t) for t in self.plane.state.tasks.values() if t.stack == STACK)
        return [*certificate_checks(held.values(), time.time()), *proxy_checks(proxies)]

    async def close(self) -> None:
        """Stop following. The proxies go on with what they have."""
        await self._spread.close()
        if self._loop:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        self.requests.keep(())
        await self.certificates.close()
