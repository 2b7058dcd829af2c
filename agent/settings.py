"""`config.yml` of an instance: registries, mirrors, address pools."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from agent import rootless
from agent.contract.network import VXLAN_PORT
from agent.contract.notify import AuditLogSettings, NotifySettings
from agent.contract.sign_in import OidcSettings
from agent.contract.sizes import parse_size
from agent.contract.trust import ImagePolicy, SigningRule, parse_age
from agent.errors import BadRequestError
from agent.paths import Paths


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """*mirrors* are asked first, in order: URLs such as http://10.0.0.5:5000. *insecure* allows plain HTTP and any
    certificate."""

    mirrors: tuple[str, ...] = ()
    insecure: bool = False


class ImageGc(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """*age*: hours, days or weeks (`240h`, `10d`, `2w`) that an image may lie unused; *disk*: the percentage of the disk from
    which on the longest unused ones go. "" and 0 are never."""

    age: str = ""
    disk: int = 0

    @property
    def age_s(self) -> float:
        """The age in seconds; 0.0 if none is set."""
        return float(self.age[:-1]) * {"h": 3600, "d": 86_400, "w": 604_800}[self.age[-1]] if self.age else 0.0

    def __post_init__(self) -> None:
        if self.age and not re.fullmatch(r"\d+[hdw]", self.age):
            raise ValueError(f"image_gc.age {self.age!r}: a number with h, d or w")
        if not 0 <= self.disk <= 100:
            raise ValueError(f"image_gc.disk {self.disk}: a percentage")


class ReserveSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What containers leave to the node: *memory* (`200m`), and *disk*, of the disk that has pystack's state (`5%` or `10g`);
    "" is nothing."""

    memory: str = ""
    disk: str = ""

    def __post_init__(self) -> None:
        if self.memory:
            parse_size(self.memory)
        if self.disk.endswith("%"):
            if not re.fullmatch(r"\d{1,2}(\.\d{1,3})?%", self.disk):
                raise ValueError(f"reserve.disk {self.disk!r}: a percentage below 100, or a size such as 10g")
        elif self.disk:
            parse_size(self.disk)

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes; 0 for none."""
        return parse_size(self.memory) if self.memory else 0

    def disk_bytes(self, total: int) -> int:
        """The room in bytes, on a disk of *total* bytes; 0 for none."""
        if self.disk.endswith("%"):
            return int(total * float(self.disk[:-1]) / 100)
        return parse_size(self.disk) if self.disk else 0


class ImageLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of an image from elsewhere; a larger one is refused while it is read, not after."""

    layers: int = 500
    """Layers of one image (overlayfs mounts at most 500)."""
    manifest_bytes: int = 4 << 20
    """A manifest, index or token answer."""
    config_bytes: int = 8 << 20
    entries: int = 2_000_000
    """Entries of one layer."""
    bytes: int = 64 << 30
    """Bytes of one layer unpacked; the holes of sparse files count."""
    path_bytes: int = 4096
    path_depth: int = 255
    """Parts of one entry's path."""
    stall_s: float = 60.0
    """Seconds without a byte after which a sender is given up."""
    build_s: float = 21_600.0
    """Seconds that a build may take."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not 0 < value < 1 << 53:  # false for a NaN, too
                raise ValueError(f"limits.{name} {value}: a number above 0")


class Door(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A further listener of the Engine API: a socket at *path* for its owner and *group*, or *listen* (`tcp://0.0.0.0:2376`)
    for clients with a certificate of *ca*; *cert* and *key* are the node's. With *access* "read" it serves no request that
    changes anything; with *project* it shows only what belongs to that Compose project or stack."""

    path: str = ""
    group: str = ""
    listen: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    access: Literal["all", "read"] = "all"
    project: str = ""

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.listen):
            raise ValueError("docker.doors: each has either a path or an address to listen at")
        if self.path and not self.path.startswith("/"):
            raise ValueError(f"docker.doors.path {self.path!r}: a whole path")
        if self.listen:
            if not re.fullmatch(r"tcp://(\[[0-9a-fA-F:]+\]|[^:/\[\]]+):[0-9]{1,5}", self.listen):
                raise ValueError(f"docker.doors.listen {self.listen!r}: it is written like tcp://0.0.0.0:2376")
            if not (self.ca and self.cert and self.key) or self.group:
                raise ValueError(f"docker.doors.listen {self.listen}: it needs ca, cert and key, and has no group")


class Docker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The *group* that may use the node's Docker socket besides its owner ("" is the owner's), and *doors*, further
    listeners."""

    group: str = ""
    doors: tuple[Door, ...] = ()


class SigningSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images that match one of *images* must be signed by one of *keys*: files with public keys in PEM, by whole paths."""

    images: tuple[str, ...] = ()
    keys: tuple[str, ...]


class PolicySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which images this node runs, for any user: see `agent.contract.trust.ImagePolicy`. *max_age*: a number with h, d or w."""

    signed: tuple[SigningSettings, ...] = ()
    registries: tuple[str, ...] = ()
    latest: bool = True
    root: bool = True
    max_age: str = ""
    locked: bool = False

    def __post_init__(self) -> None:
        if self.max_age:
            parse_age(self.max_age)

    @property
    def policy(self) -> ImagePolicy:
        """With the keys read. Raises BadRequestError if a file has none."""
        rules = []
        for rule in self.signed:
            keys = []
            for path in rule.keys:
                try:
                    keys.append(Path(path).read_text())
                except (OSError, ValueError) as error:
                    raise BadRequestError(f"image_policy.signed.keys: {path} cannot be read: {error}") from None
            rules.append(SigningRule(images=rule.images, keys=tuple(keys)))
        return ImagePolicy(
            signed=tuple(rules),
            registries=self.registries,
            latest=self.latest,
            root=self.root,
            max_age_s=parse_age(self.max_age) if self.max_age else 0.0,
            locked=self.locked,
        )


class QuotaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the stacks of a name pattern may have together: *cpus*, *memory* (`8g`), *tasks*, *volumes*, the sizes of
    their volumes added up (*volume_size*, `100g`); and the *hosts* (with `*` and `?`) that their ingress may say. A value that
    is left out is not limited."""

    cpus: float | None = None
    memory: str = ""
    tasks: int | None = None
    volumes: int | None = None
    volume_size: str = ""
    hosts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("memory", "volume_size"):
            if size := getattr(self, name):
                try:
                    parse_size(size, least=0)
                except ValueError as error:
                    raise ValueError(f"quotas: {name} {size!r}: {error}") from None
        for name in ("cpus", "tasks", "volumes"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1 << 31:  # false for a NaN, too
                raise ValueError(f"quotas: {name} {value}: a number from 0 on")

    @property
    def memory_bytes(self) -> int | None:
        """The memory in bytes; None if none is set."""
        return parse_size(self.memory, least=0) if self.memory else None

    @property
    def volume_bytes(self) -> int | None:
        """The size of all volumes in bytes; None if none is set."""
        return parse_size(self.volume_size, least=0) if self.volume_size else None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of the agent's configuration file."""

    registries: dict[str, RegistrySettings] = {}
    address_pools: tuple[str, ...] = ("172.16.0.0/12", "192.168.0.0/16")
    runtime: Literal["auto", "runc", "crun"] = "auto"
    """auto: crun where it is installed and works, else runc."""
    runtimes: dict[str, tuple[str, ...]] = {}
    """Runtimes that containers can ask for beside runc and crun: by name, the program's path, and arguments before its
    command."""
    labels: dict[str, str] = {}
    """The engine's own labels, for `engine.labels.…` in placement constraints."""
    log_max_size: str = ""
    """How large a log may grow (`10m`) that has no `max-size` of its own; "" is without end."""
    image_gc: ImageGc = ImageGc()
    reserve: ReserveSettings = ReserveSettings()
    heal: bool = True
    """Whether changes by others to our links, entries and rules are undone at once. If not, `pystack doctor` shows them, and
    `--repair` undoes them."""
    docker_config: str = ""
    """Directory of Docker's config.json with the registry credentials; DOCKER_CONFIG or ~/.docker by default."""
    docker: Docker = Docker()
    userns: Literal["host", "auto"] = "host"
    """The user namespace of containers that do not name one: the node's, or one for each."""
    selinux: Literal["auto", "off"] = "auto"
    """auto: containers have SELinux labels where the kernel has a policy that knows containers."""
    limits: ImageLimits = ImageLimits()
    image_policy: PolicySettings = PolicySettings()
    open_to_containers: tuple[str, ...] = ()
    """Ports of nodes (`9100/tcp`) that containers of this node reach, here and on other nodes, besides published ports."""
    data_path_port: int = VXLAN_PORT
    """The UDP port (1024 to 49151) at which nodes take each other's packets of overlay networks (VXLAN). The server that leads
    gives it to overlays that are made; those that are there keep the one they have."""
    notify: NotifySettings = NotifySettings()
    audit_log: AuditLogSettings = AuditLogSettings()
    oidc: OidcSettings = OidcSettings()
    reschedule_after: str = "8s"
    """How long a node may be silent before its tasks are moved to others, where possible; `never` leaves them. One whose
    machine still answers over SSH has 30 s at least."""

    prometheus: str = ""
    """The Prometheus that services are scaled by whose x-scale has a query, as this host reaches it: http://HOST:9090."""
    traces: str = ""
    """The collector (OTLP over HTTP, http://HOST:4318) that servers send traces of `up` and other long requests to; "" for the
    one that OTEL_EXPORTER_OTLP_ENDPOINT names."""
    quotas: dict[str, QuotaSettings] = {}
    """What stacks may have together whose names match a pattern (`team-a-*`), on the host of each server."""

    def __post_init__(self) -> None:
        for name, words in self.runtimes.items():
            if name in ("runc", "crun") or not words or not words[0].startswith("/"):
                raise ValueError(f"runtimes.{name}: a list of the program's whole path and of arguments; not of runc or crun")
        for word in self.open_to_containers:
            found = re.fullmatch(r"(\d{1,5})/(tcp|udp|sctp)", word)
            if not found or not 0 < int(found[1]) < 65536:
                raise ValueError(f"open_to_containers {word!r}: a port with its protocol, such as 9100/tcp")
        if not 1024 <= self.data_path_port <= 49151:  # as Docker has it: below are the system's, above those of clients
            raise ValueError(f"data_path_port {self.data_path_port}: a UDP port from 1024 to 49151")
        if self.prometheus and not self.prometheus.startswith(("http://", "https://")):
            raise ValueError(f"prometheus {self.prometheus!r}: it is written like http://HOST:9090")
        if self.traces and not self.traces.startswith(("http://", "https://")):
            raise ValueError(f"traces {self.traces!r}: it is written like http://HOST:4318")
        if self.reschedule_after != "never" and not re.fullmatch(r"\d+[smh]", self.reschedule_after):
            raise ValueError(f"reschedule_after {self.reschedule_after!r}: a number with s, m or h, or never")

    @property
    def opened(self) -> frozenset[tuple[str, int]]:
        """(protocol, port) of `open_to_containers`."""
        return frozenset((protocol, int(port)) for port, _, protocol in (w.partition("/") for w in self.open_to_containers))

    @property
    def reschedule_after_s(self) -> float | None:
        """The time in seconds; None for never."""
        word = self.reschedule_after
        return None if word == "never" else float(word[:-1]) * {"s": 1, "m": 60, "h": 3600}[word[-1]]


def load(paths: Paths) -> Settings:
    """Read the settings; an absent file is all defaults. Raises BadRequestError with the file and the fault."""
    fallback = paths.root / "config.yml"
    if not paths.tag:
        own = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "pystack"
        fallback = (own if rootless.inside() else Path("/etc/pystack")) / "config.yml"
    path = Path(os.environ.get("PYSTACK_CONFIG", fallback))
    if not path.exists():
        return Settings()
    import yaml  # 0.8 MB, which a node without settings does without

    try:
        return msgspec.convert(yaml.safe_load(path.read_text()) or {}, Settings)
    except (yaml.YAMLError, msgspec.ValidationError, OSError) as error:
        raise BadRequestError(f"{path}: {error}") from error
