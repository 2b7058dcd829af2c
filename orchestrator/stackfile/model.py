"""The Stack: a stack file, loaded. Immutable; the way from here to tasks is pure."""

from __future__ import annotations

from typing import Literal

from agent.contract.bandwidth import Bandwidth
from agent.contract.container import Container, Hook, Port, Ulimit, digest
from agent.contract.network import Subnet, is_encrypted
from agent.contract.trust import ImagePolicy, Locked
from agent.contract.volume import is_shared
from agent.contract.wire import WireStruct
from orchestrator.stackfile.fence import Fence
from orchestrator.stackfile.workloads import JOBS, Backup, Hooks, Job, Scale, Schedule, StagedUpdate


class Dependency(WireStruct, frozen=True, kw_only=True):
    """*condition*: service_started, service_healthy or service_completed_successfully. *restart*: restart with it. It is
    *implied* where another key of the service makes it."""

    service: str
    condition: str = "service_started"
    restart: bool = False
    required: bool = True
    implied: bool = False
    where: str = ""


class BuildSecret(WireStruct, frozen=True, kw_only=True):
    """A file, or a variable of the client, that RUN sees as /run/secrets/*id*."""

    id: str
    file: str = ""
    environment: str = ""


class BuildLimits(WireStruct, frozen=True, kw_only=True):
    """What a build may cost: *memory* in bytes and *cpus* are those of each RUN, *timeout_s* is the whole build's; 0 sets no
    limit."""

    memory: int = 0
    cpus: float = 0.0
    timeout_s: float = 0.0


class Build(WireStruct, frozen=True, kw_only=True):
    """How to build a service's image. *context* is a folder on the client, or, where it is *remote*, the address of a
    repository or of a tar. *contexts* are further ones by name: such, `service:NAME`, or `docker-image://NAME`.
    *ssh* are agents by name, with their sockets ("": that of SSH_AUTH_SOCK)."""

    context: str
    dockerfile: str = "Dockerfile"
    dockerfile_inline: str = ""
    args: tuple[tuple[str, str], ...] = ()
    target: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    entitlements: tuple[str, ...] = ()
    remote: bool = False
    pull: bool = False
    network: str = ""
    contexts: tuple[tuple[str, str], ...] = ()
    secrets: tuple[BuildSecret, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    platforms: tuple[str, ...] = ()
    privileged: bool = False
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    provenance: str = ""
    sbom: str = ""
    ssh: tuple[tuple[str, str], ...] = ()

    @property
    def after(self) -> tuple[str, ...]:
        """Services whose images it is built from."""
        return tuple(value[8:] for _, value in self.contexts if value.startswith("service:"))


class Provider(WireStruct, frozen=True, kw_only=True):
    """Who provides a service in place of a container: a program of the client. *options* are given to it in this order."""

    type: str
    options: tuple[tuple[str, str], ...] = ()


class StartHook(WireStruct, frozen=True, kw_only=True):
    """A container that runs to its end before a service starts. *image* "" is the service's own."""

    hook: Hook
    image: str = ""


class Placement(WireStruct, frozen=True, kw_only=True):
    """Where replicas may and should go. *constraints* are Swarm's, *extended* those of `x-placement`; *spread* are
    labels over whose values replicas are spread, outermost first; *near* and *away* name services; *tolerations* are of
    taints that nodes have."""

    constraints: tuple[str, ...] = ()
    extended: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    max_per_node: int = 0
    near: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    tolerations: tuple[str, ...] = ()


class Reserves(WireStruct, frozen=True, kw_only=True):
    """What a replica must find free on its node: cores, bytes, and countable things by kind."""

    cpus: float = 0.0
    memory: int = 0
    generic: tuple[tuple[str, int], ...] = ()


class WatchRule(WireStruct, frozen=True, kw_only=True):
    """What a change below *path*, of the client, leads to. *target* is the path in the container; *ignore* and *include* are
    patterns as .dockerignore has them; *command* is run after a sync."""

    path: str
    action: Literal["rebuild", "sync", "restart", "sync+restart", "sync+exec"]
    target: str = ""
    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    command: Hook | None = None
    initial_sync: bool = False


class UpdateConfig(WireStruct, frozen=True, kw_only=True):
    """`deploy.update_config` or `rollback_config`: how the tasks of a service are exchanged for others. *parallelism* 0 is all
    at once; *max_failure_ratio* is the part of them that may fail before *failure_action* is taken."""

    parallelism: int = 1
    delay_s: float = 0.0
    failure_action: str = "pause"
    monitor_s: float = 0.0
    max_failure_ratio: float = 0.0
    order: str = "stop-first"


class IngressRule(WireStruct, frozen=True, kw_only=True):
    """One entry of `x-ingress`: requests for *host* (lower case, `*.` in front for a wildcard) and paths below *path* go to
    *port* of the service's tasks. With *tcp* it is TLS connections to that port of the nodes whose client names *host*:
    they are passed on as they are. *tls* "" is what the cluster's ingress says. *secret* and *basic_auth* are keys of secrets;
    a header with the value "" is taken away. *allow* are networks of clients, all if empty; *body_limit* is in bytes, 0 for
    none. A client may send *rate* requests in *rate_s* seconds, any number if 0. *where* is its place in the file."""

    host: str
    port: int
    path: str = "/"
    tcp: int = 0
    protocol: Literal["http", "h2c", "https"] = "http"
    strip_path: bool = False
    sticky: Literal["", "cookie", "ip"] = ""
    weight: int = 1
    tls: Literal["", "acme", "internal", "manual", "off"] = ""
    secret: str = ""
    redirect: bool = True
    request_headers: tuple[tuple[str, str], ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()
    basic_auth: str = ""
    allow: tuple[str, ...] = ()
    body_limit: int = 0
    compress: bool = False
    rate: int = 0
    rate_s: int = 1
    maintenance: str = ""
    where: str = ""

    @property
    def place(self) -> str:
        """What only one rule can have: `shop.example.org/api`, `db.example.org:5432`."""
        return f"{self.host}:{self.tcp}" if self.tcp else f"{self.host}{self.path}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys of the secrets that it names."""
        return tuple(s for s in (self.secret, self.basic_auth) if s)


class MetricsEndpoint(WireStruct, frozen=True, kw_only=True):
    """`x-metrics`: each task of the service answers with its metrics at *path* of its *port*."""

    port: int
    path: str = "/metrics"


class PortRange(WireStruct, frozen=True, kw_only=True):
    """A port of each task's own, from that of *port* to *last*, of which the plan takes one."""

    port: Port
    last: int


class Service(WireStruct, frozen=True, kw_only=True):
    """*container* is resolved but for addresses and the image's identity, which the plan decides. *where* is the
    service's place in the file, `stack.yml:3:5`. One that *prepares* another was made of its `pre_start`. *labels* are
    the service's own, beside those of its containers. A *problem* keeps it, and it alone, from being brought up."""

    name: str
    container: Container
    where: str
    attach: bool = True
    replicas: int = 1
    container_name: str = ""
    port_ranges: tuple[PortRange, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    build: Build | None = None
    build_node: str = ""
    """Where it is built: a node, or one of its labels; "" for the server's own node."""
    build_limits: BuildLimits = BuildLimits()
    mode: str = "replicated"
    endpoint_mode: str = ""
    placement: Placement = Placement()
    reserves: Reserves = Reserves()
    update: UpdateConfig | None = None
    rollback: UpdateConfig | None = None
    fence: Fence | None = None
    ingress_mode: str = "local-first"
    job: Job = Job()
    schedule: Schedule | None = None
    hooks: Hooks = Hooks()
    staged: StagedUpdate | None = None
    scale: Scale | None = None
    priority: int = 0
    stable: str = ""
    """ordered or parallel: how replicas with names of their own start; "" where they have none."""
    watch: tuple[WatchRule, ...] = ()
    pre_start: tuple[StartHook, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    project_paths: tuple[str, ...] = ()
    """Sources of bind mounts that are the project's own: only the client's host has them."""
    is_pre_start_of: str = ""
    problem: str = ""
    provider: Provider | None = None
    provided: tuple[tuple[str, str], ...] = ()
    """The provider and the name of each variable that one gave."""
    bandwidth: Bandwidth | None = None
    """On each network that says nothing of its own."""

    @property
    def definition(self) -> str:
        """What tells the tasks of this definition from those of another one. 12 hex digits."""
        return digest(self.container)[:12]

    @property
    def is_job(self) -> bool:
        """Whether its tasks run to their ends, as part of `up`."""
        return self.mode in JOBS and not self.is_pre_start_of and self.schedule is None

    @property
    def max_concurrent(self) -> int:
        """How many tasks of a job run at a time, 0 for all: Swarm's --max-concurrent, or the parallelism of its updates."""
        return self.job.max_concurrent or (self.update.parallelism if self.update else 0)

    ingress: tuple[IngressRule, ...] = ()
    metrics: MetricsEndpoint | None = None


DRIVERS = ("bridge", "overlay", "macvlan", "ipvlan", "host", "none")
LAN_DRIVERS = ("macvlan", "ipvlan")
"""Network drivers that every node has; with those of the second kind containers stand on a LAN of the hosts."""


class StackNetwork(WireStruct, frozen=True, kw_only=True):
    """*key* is its name in the file, *name* its name on the node. *driver* "" is overlay where there are several nodes."""

    key: str
    name: str
    driver: str = ""
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    ipv6: bool = False
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    external: bool = False
    where: str = ""
    bandwidth: Bandwidth | None = None
    """Of each service of the file on it that says nothing of its own."""

    @property
    def parent(self) -> str:
        """The link of each host that it is made on, "" for none."""
        return dict(self.options).get("parent", "") if self.driver not in ("", "bridge", "overlay") else ""

    @property
    def encrypted(self) -> bool:
        """Whether what several nodes say to each other on it must be secret."""
        return self.driver in ("", "overlay") and is_encrypted(self.options)

    @property
    def one_host(self) -> bool:
        """Whether it can join containers of one host only: a bridge, or a LAN with no wire to it."""
        return self.driver == "bridge" or (self.driver in LAN_DRIVERS and not self.parent)


class StackVolume(WireStruct, frozen=True, kw_only=True):
    """A top-level volume of a stack file. *where* is its place in the file, "" if unknown."""

    key: str
    name: str
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    follow: bool = False
    external: bool = False
    where: str = ""
    backup: Backup | None = None

    @property
    def shared(self) -> bool:
        """Whether tasks on several nodes see one volume."""
        return is_shared(self.driver, self.options)


class StackContent(WireStruct, frozen=True, kw_only=True):
    """A config or secret. Its *content* is what the client read; the server knows it by its *digest* alone. An *external*
    one was made by hand and is called *name*. One with a *template_driver* is filled in for each task. *problem* is why the
    client could not read it: nothing is done to a stack that would lose what was there before."""

    kind: Literal["config", "secret"]
    key: str
    name: str
    content: bytes | None = None
    digest: str = ""
    external: bool = False
    template_driver: str = ""
    where: str = ""
    problem: str = ""


class Stack(WireStruct, frozen=True, kw_only=True):
    """A loaded stack file: what `up` sends to the server."""

    name: str
    services: tuple[Service, ...] = ()
    networks: tuple[StackNetwork, ...] = ()
    volumes: tuple[StackVolume, ...] = ()
    contents: tuple[StackContent, ...] = ()
    policy: ImagePolicy = ImagePolicy()
    """What the images of its services must be."""
    lock: tuple[Locked, ...] | None = None
    """What stack.lock says beside the stack file, None where there is none."""
    lock_enforced: bool = False
    """Whether an image that is not as the lock says is refused."""
