"""The Stack: a stack file, loaded. Immutable; the way from here to tasks is pure."""

from __future__ import annotations

from agent.manifest import Container, Record


class Dependency(Record, frozen=True, kw_only=True):
    """*condition*: service_started, service_healthy or service_completed_successfully. *restart*: restart with it."""

    service: str
    condition: str = "service_started"
    restart: bool = False
    required: bool = True
    where: str = ""


class Build(Record, frozen=True, kw_only=True):
    """How to build a service's image. *context* is a folder on the client."""

    context: str
    dockerfile: str = "Dockerfile"
    dockerfile_inline: str = ""
    args: tuple[tuple[str, str], ...] = ()
    target: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    network: str = ""


class Service(Record, frozen=True, kw_only=True):
    """*container* is resolved but for addresses and the image's identity, which the plan decides. *where* is the
    service's place in the file, `stack.yml:3:5`."""

    name: str
    container: Container
    where: str
    replicas: int = 1
    container_name: str = ""
    depends_on: tuple[Dependency, ...] = ()
    build: Build | None = None


class StackNetwork(Record, frozen=True, kw_only=True):
    """*key* is its name in the file, *name* its name on the node."""

    key: str
    name: str
    driver: str = "bridge"
    subnets: tuple[tuple[str, str], ...] = ()
    internal: bool = False
    ipv6: bool = False
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    external: bool = False
    where: str = ""


class StackVolume(Record, frozen=True, kw_only=True):
    key: str
    name: str
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    external: bool = False
    where: str = ""


class Stack(Record, frozen=True, kw_only=True):
    name: str
    services: tuple[Service, ...] = ()
    networks: tuple[StackNetwork, ...] = ()
    volumes: tuple[StackVolume, ...] = ()
