"""The options of a container whose values are plain: one row each, from which every layer that knows options makes its own.

A row becomes the key of a service in a stack file (schema, reader, merge rule, canonical form, docs/compose.md), the field of
the Docker Engine API both ways, the option of `docker run` that `pystack convert` reads, and that of `pystack container run`.
What an option does is in `agent/containers/bundle.py`. Options with a shape or a rule of their own are written by hand in
each of these. This imports nothing: the command line has it at each start.
Source: Compose Specification, 05-services.md; Docker Engine API v1.48, ContainerCreate; docker-run(1).
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a value looks like: in a stack file, and as the type of its field."""

    FLAG = "true or false"
    """bool"""
    TEXT = "text"
    """str, "" if not given"""
    WHOLE = "a whole number"
    """int, 0 if not given"""
    SIZE = "a size such as 64m"
    """int, in bytes, 0 if not given"""
    WORDS = "a list of texts"
    """tuple[str, ...]"""
    WORD_OR_WORDS = "text or a list of texts"
    """tuple[str, ...]"""
    PAIRS = "a mapping or a list of NAME=VALUE"
    """tuple[tuple[str, str], ...], sorted"""


class Option(NamedTuple):
    """*field* is that of `Container`; *does* describes it to users, *differs* how it is honoured differently than in Docker.

    *key* is that of a service, *host* of the HostConfig of a create request or *config* of the rest of it, *flag* and *short*
    of `docker run`; "" if there is none. A whole number is from *low* to *high*. *nullable*: an empty list or mapping is
    null in answers of the API. *limit*: a request to update a container may have it."""

    field: str
    kind: Kind
    does: str
    differs: str = ""
    key: str = ""
    host: str = ""
    config: str = ""
    flag: str = ""
    short: str = ""
    low: int = 0
    high: int = 1 << 62
    nullable: bool = True
    limit: bool = False


K = Kind
OPTIONS: tuple[Option, ...] = (
    Option(
        "working_dir",
        K.TEXT,
        "The folder that it starts in.",
        key="working_dir",
        config="WorkingDir",
        flag="--workdir",
        short="-w",
    ),
    Option("user", K.TEXT, "The user that it runs as.", key="user", config="User", flag="--user", short="-u"),
    Option("hostname", K.TEXT, "What it calls itself.", key="hostname", config="Hostname", flag="--hostname", short="-h"),
    Option("domainname", K.TEXT, "Its NIS domain.", key="domainname", config="Domainname", flag="--domainname"),
    Option(
        "annotations",
        K.PAIRS,
        "OCI annotations, for the runtime.",
        key="annotations",
        host="Annotations",
        flag="--annotation",
    ),
    Option("tty", K.FLAG, "With a terminal.", key="tty", config="Tty", flag="--tty", short="-t"),
    Option(
        "stdin_open",
        K.FLAG,
        "With standard input open.",
        key="stdin_open",
        config="OpenStdin",
        flag="--interactive",
        short="-i",
    ),
    Option(
        "init",
        K.FLAG,
        "With an init that reaps children.",
        differs="needs tini or catatonit on the node",
        key="init",
        host="Init",
        flag="--init",
    ),
    Option("read_only", K.FLAG, "Its root is not to be written.", key="read_only", host="ReadonlyRootfs", flag="--read-only"),
    Option(
        "privileged",
        K.FLAG,
        "With all capabilities and devices.",
        key="privileged",
        host="Privileged",
        flag="--privileged",
    ),
    Option("cap_add", K.WORDS, "Further capabilities.", key="cap_add", host="CapAdd", flag="--cap-add"),
    Option("cap_drop", K.WORDS, "Capabilities that it has not.", key="cap_drop", host="CapDrop", flag="--cap-drop"),
    Option(
        "stop_signal",
        K.TEXT,
        "The signal that asks it to end.",
        key="stop_signal",
        config="StopSignal",
        flag="--stop-signal",
    ),
    Option(
        "cpu_burst",
        K.WHOLE,
        "Microseconds of its CPU quota that it may save up while it needs less.",
        host="CpuBurst",
        flag="--cpu-burst",
        limit=True,
    ),
    Option(
        "hugepages",
        K.PAIRS,
        "Memory in huge pages that it may use, by their size: 2MB=64m.",
        differs="needs the hugetlb controller of the node's kernel",
        key="x-hugepages",
        host="HugepageLimits",
        flag="--hugepages",
        limit=True,
    ),
    Option("cpuset", K.TEXT, "The CPUs that it may run on.", key="cpuset", host="CpusetCpus", flag="--cpuset-cpus", limit=True),
    Option(
        "memory",
        K.SIZE,
        "Memory that it may use.",
        key="mem_limit",
        host="Memory",
        flag="--memory",
        short="-m",
        limit=True,
    ),
    Option(
        "oom_score_adj",
        K.WHOLE,
        "How soon it is killed where memory is out.",
        key="oom_score_adj",
        host="OomScoreAdj",
        flag="--oom-score-adj",
        low=-1000,
        high=1000,
    ),
    Option(
        "oom_kill_disable",
        K.FLAG,
        "Never kill it.",
        differs="kernels with cgroup v2 have no such control",
        key="oom_kill_disable",
        host="OomKillDisable",
        flag="--oom-kill-disable",
        limit=True,
    ),
    Option(
        "cgroup_parent",
        K.TEXT,
        "The cgroup above it.",
        key="cgroup_parent",
        host="CgroupParent",
        flag="--cgroup-parent",
        limit=True,
    ),
    Option("sysctls", K.PAIRS, "Kernel parameters of its namespaces.", key="sysctls", host="Sysctls", flag="--sysctl"),
    Option(
        "device_rules",
        K.WORDS,
        "Rules of the device cgroup.",
        key="device_cgroup_rules",
        host="DeviceCgroupRules",
        flag="--device-cgroup-rule",
        limit=True,
    ),
    Option(
        "volumes_from",
        K.WORDS,
        "The mounts of another service or container.",
        key="volumes_from",
        host="VolumesFrom",
        flag="--volumes-from",
    ),
    Option(
        "dns",
        K.WORD_OR_WORDS,
        "Servers that are asked for outer names.",
        key="dns",
        host="Dns",
        flag="--dns",
        nullable=False,
    ),
    Option(
        "dns_search",
        K.WORD_OR_WORDS,
        "Domains that are tried.",
        key="dns_search",
        host="DnsSearch",
        flag="--dns-search",
        nullable=False,
    ),
    Option("uts_mode", K.TEXT, "Its UTS namespace.", key="uts", host="UTSMode", flag="--uts"),
)
"""In the order in which docs/compose.md has them."""
