"""What a file says in one service and the plan must know as more: containers that run before it, services of others.

Pure, and after all is read and checked. Source: Compose Specification, 05-services.md, `pre_start` and `provider`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from agent.contract.container import Container, Healthcheck, Hook
from orchestrator.stackfile.model import Dependency, Service, StartHook


class Provided(msgspec.Struct, frozen=True, kw_only=True):
    """A service or model that a program of the client provides, and the services that it gives variables to. *names* has
    for each user of a model what it calls the variables with its address and its name."""

    service: Service
    users: tuple[str, ...]
    names: tuple[tuple[str, str, str], ...] = ()


def expand_pre_start(services: Sequence[Service]) -> Iterator[Service]:
    """*services*, with one more before each for every container that prepares it: a chain, each link once it has succeeded."""
    for one in services:
        waits = one.depends_on
        for number, hook in enumerate(one.pre_start):
            made = _pre_start_service(one, number, hook, waits)
            yield made
            waits = (Dependency(service=made.name, condition="service_completed_successfully", where=one.where),)
        if one.pre_start:
            one = msgspec.structs.replace(one, depends_on=(*one.depends_on, *waits))
        yield one


def _pre_start_service(one: Service, number: int, hook: StartHook, waits: tuple[Dependency, ...]) -> Service:
    """On the service's networks and volumes, without its names, addresses and ports."""
    container = hook_container(one.container, hook.hook, hook.image)
    return Service(
        name=f"{one.name}-pre_start-{number}",
        container=container,
        where=one.where,
        depends_on=waits,
        mode="replicated-job",
        placement=one.placement,
        attach=one.attach,
        is_pre_start_of=one.name,
    )


def hook_container(c: Container, spec: Hook, image: str = "") -> Container:
    """A container that runs *spec* to its end beside those of *c*: on their networks and volumes, without their names,
    addresses and ports. *image* "" is theirs."""
    return msgspec.structs.replace(
        c,
        image=image or c.image,
        entrypoint=() if spec.command else None,
        command=spec.command or None,
        user=spec.user or ("" if image else c.user),
        working_dir=spec.working_dir or ("" if image else c.working_dir),
        privileged=spec.privileged or c.privileged,
        environment=tuple({**dict(c.environment), **dict(spec.environment)}.items()),
        restart="no",
        restart_max=0,
        ports=(),
        healthcheck=Healthcheck(test=("NONE",)),
        post_start=(),
        pre_stop=(),
        tty=False,
        stdin_open=False,
        attachments=tuple(msgspec.structs.replace(a, ipv4="", ipv6="", mac="", aliases=()) for a in c.attachments),
    )


def split_provided(services: Sequence[Service]) -> tuple[list[Service], tuple[Provided, ...]]:
    """Services that are containers, waiting for containers alone; and those that somebody else provides."""
    by_others = {s.name: s for s in services if s.provider}
    containers = [
        msgspec.structs.replace(s, depends_on=tuple(d for d in s.depends_on if d.service not in by_others))
        for s in services
        if not s.provider
    ]
    return containers, tuple(
        Provided(service=one, users=tuple(s.name for s in services if any(d.service == name for d in s.depends_on)))
        for name, one in by_others.items()
    )
