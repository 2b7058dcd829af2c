"""What a stack file may look like: every key, its shape, what it does here, and what does not hold here.

A JSON Schema (draft 2020-12) written in Python, and the one table of keys: `shape.py` holds files against it, `pystack schema`
prints it for editors, docs/compose.md is made from it. Two words of it are ours: "x-differs" says how a key is honoured
differently, "x-refused" why it has no effect.
Source: Compose Specification, its chapters 03 to 11.
"""

from __future__ import annotations

from typing import Any

from agent.contract.backup import KEEP
from agent.contract.options import OPTIONS, Kind, Option

Schema = dict[str, Any]
NAME = "^[a-zA-Z0-9._-]+$"
LATER = "is not supported yet and has no effect"
WINDOWS = "is a key for Windows containers and has no effect"


def key(shape: Schema, does: str, *, differs: str = "", refused: str = "") -> Schema:
    """A key: what it looks like, what it does, how that differs from Docker Compose, or why it has no effect."""
    notes = {"x-differs": differs, "x-refused": refused}
    return {**shape, "description": does, **{k: v for k, v in notes.items() if v}}


def record(properties: Schema, *required: str, empty: bool = False) -> Schema:
    """A mapping with these keys; *empty* allows nothing in place of it."""
    shape: Schema = {
        "type": ["object", "null"] if empty else "object",
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
    }
    return {**shape, "required": list(required)} if required else shape


def named(shape: Schema, *, any_name: bool = False) -> Schema:
    """A mapping from names to *shape*."""
    return (
        {"type": "object", "additionalProperties": shape}
        if any_name
        else {"type": "object", "patternProperties": {NAME: shape}, "additionalProperties": False}
    )


def listed(shape: Schema, *, unique: bool = False) -> Schema:
    """A list of *shape*."""
    return {"type": "array", "items": shape, **({"uniqueItems": True} if unique else {})}


def either(*shapes: Schema, title: str = "") -> Schema:
    """Exactly one of *shapes*."""
    return {"oneOf": list(shapes), **({"title": title} if title else {})}


def ref(name: str) -> Schema:
    """A reference to the definition *name*."""
    return {"$ref": f"#/$defs/{name}"}


def words(*choices: str) -> Schema:
    """One of *choices*."""
    return {"type": "string", "enum": list(choices)}


TEXT: Schema = {"type": "string"}
FLAG: Schema = {
    "type": ["boolean", "string"],
    "title": "true or false",
    "pattern": "^([tT]rue|TRUE|[fF]alse|FALSE|[yY]es|YES|[nN]o|NO|[oO]n|ON|[oO]ff|OFF|[yYnN])$",
}
NUMBER: Schema = {"type": ["number", "string"], "title": "a number"}
WHOLE: Schema = {"type": ["integer", "string"], "title": "a whole number"}
SIZE: Schema = {"type": ["number", "string"], "title": "a size such as 64m"}
WHOLE_SIZE: Schema = {"type": ["integer", "string"], "title": "whole bytes, or a size such as 64m"}
DURATION: Schema = {"type": "string", "title": "a duration such as 1m30s"}
SCALAR: Schema = {"type": ["string", "number", "boolean", "null"], "title": "text"}
TEXTS = listed(TEXT)
UNIQUE_TEXTS = listed(TEXT, unique=True)
ONE_OR_MORE = either(TEXT, UNIQUE_TEXTS, title="text or a list of texts")
PAIRS = either(named(SCALAR, any_name=True), UNIQUE_TEXTS, title="a mapping or a list of NAME=VALUE")
DRIVER_OPTIONS = named({"type": ["string", "number"], "title": "text"}, any_name=True)
COMMAND = either({"type": "null"}, TEXT, TEXTS, title="text or a list of texts")
HOSTS = either(named(either(TEXT, TEXTS), any_name=True), UNIQUE_TEXTS, title="a mapping or a list of NAME:ADDRESS")
EXTERNAL = either(FLAG, record({"name": key(TEXT, "What it is called, as files of old wrote it.")}))
GRANTS = listed(
    either(
        TEXT,
        record(
            {
                "source": key(TEXT, "Which one, by its key at the top level."),
                "target": key(TEXT, "Where in the container."),
                "uid": key(TEXT, "Whose file it is there."),
                "gid": key(TEXT, "Which group's file it is there."),
                "mode": key(NUMBER, "Its permission bits, 0444 if not given."),
            }
        ),
    )
)
ULIMITS = named(
    either(WHOLE, record({"soft": key(WHOLE, "The soft limit."), "hard": key(WHOLE, "The hard limit.")}, "soft", "hard")),
    any_name=True,
)
HOOK = {
    "command": key(COMMAND, "What is run."),
    "user": key(TEXT, "The user; the container's if not given."),
    "privileged": key(FLAG, "With all capabilities."),
    "working_dir": key(TEXT, "In which folder."),
    "environment": key(PAIRS, "With which further variables."),
}
PERCENT: Schema = {"type": ["number", "string"], "title": "a part such as 5%"}
SCALE_RATE = record(
    {
        "stabilise": key(DURATION, "The most cautious recommendation of so long counts: 0s up, 5m down."),
        "percent": key(PERCENT, "So many of them within a period: 100%."),
        "tasks": key(WHOLE, "Or so many, if that is more: 4 up, 0 down."),
        "period": key(DURATION, "The period: 15s."),
    }
)
DEPLOY_HOOK = either(
    TEXT,
    TEXTS,
    record(
        {
            **HOOK,
            "image": key(TEXT, "In which image; the service's own if not given."),
            "deadline": key(DURATION, "It fails if it takes longer."),
        },
        "command",
    ),
    title="a command, or a mapping that has one",
)
REQUESTS = listed(
    record(
        {
            "capabilities": key(UNIQUE_TEXTS, "What the device can do."),
            "count": key(WHOLE, "How many."),
            "device_ids": key(UNIQUE_TEXTS, "Which ones."),
            "driver": key(TEXT, "By which driver."),
            "options": key(PAIRS, "Options of the driver.", refused="a CDI file describes the device completely"),
        },
        "capabilities",
    )
)
HEALTHCHECK = record(
    {
        "test": key(either(TEXT, TEXTS), "The command: text for a shell, or a list that begins with CMD, CMD-SHELL or NONE."),
        "disable": key(FLAG, "Switches the image's own check off."),
        "interval": key(DURATION, "Time between checks."),
        "timeout": key(DURATION, "How long one may take."),
        "retries": key(NUMBER, "How many in a row must fail."),
        "start_period": key(DURATION, "Failures of the first so long do not count."),
        "start_interval": key(DURATION, "Time between checks while it starts."),
    }
)
WATCH = record(
    {
        "watch": key(
            listed(
                record(
                    {
                        "path": key(TEXT, "Folder or file on the client."),
                        "action": key(
                            words("rebuild", "sync", "restart", "sync+restart", "sync+exec"), "What a change there leads to."
                        ),
                        "target": key(TEXT, "Where in the container it is copied to."),
                        "ignore": key(ONE_OR_MORE, "Patterns that are left out."),
                        "include": key(ONE_OR_MORE, "Patterns that alone count."),
                        "exec": key(record(HOOK, "command"), "What is run there after a sync."),
                        "initial_sync": key({"type": "boolean"}, "Copy all once at the beginning."),
                    },
                    "path",
                    "action",
                )
            ),
            "Rules of `pystack watch`.",
        )
    },
    empty=True,
)
UPDATE = record(
    {
        "parallelism": key(WHOLE, "How many at once."),
        "delay": key(DURATION, "Time between two."),
        "failure_action": key(TEXT, "What follows a failure."),
        "monitor": key(DURATION, "How long one is looked at."),
        "max_failure_ratio": key(NUMBER, "How many may fail."),
        "order": key(words("start-first", "stop-first"), "Which of the two goes first."),
    }
)
DEPLOY = record(
    {
        "mode": key(TEXT, "replicated, global, replicated-job or global-job."),
        "replicas": key(WHOLE, "How many tasks."),
        "endpoint_mode": key(
            TEXT,
            "vip: one address for the service; dnsrr: those of all tasks.",
            differs="a service with one task has no address of its own unless vip is asked for",
        ),
        "labels": key(PAIRS, "Labels of the service.", differs="templates have them; containers carry `labels:`"),
        "update_config": key(UPDATE, "How replicas are exchanged; without it, all at once."),
        "rollback_config": key(UPDATE, "How they are changed back where an update failed."),
        "resources": key(
            record(
                {
                    "limits": key(
                        record(
                            {
                                "cpus": key(NUMBER, "CPUs that a task may use."),
                                "memory": key(TEXT, "Memory that a task may use."),
                                "pids": key(WHOLE, "Processes that a task may have."),
                            }
                        ),
                        "What a task may not exceed.",
                    ),
                    "reservations": key(
                        record(
                            {
                                "cpus": key(NUMBER, "CPUs that a node must have left."),
                                "memory": key(TEXT, "Memory that a node must have left."),
                                "generic_resources": key(
                                    listed(
                                        record(
                                            {
                                                "discrete_resource_spec": key(
                                                    record(
                                                        {
                                                            "kind": key(TEXT, "What is counted."),
                                                            "value": key(NUMBER, "How many."),
                                                        }
                                                    ),
                                                    "A counted thing.",
                                                )
                                            }
                                        )
                                    ),
                                    "Things that nodes have by label and tasks use up.",
                                ),
                                "devices": key(REQUESTS, "Devices that a task needs; nodes describe theirs in CDI files."),
                            }
                        ),
                        "What a node must have left.",
                    ),
                }
            ),
            "Limits and reservations.",
        ),
        "restart_policy": key(
            record(
                {
                    "condition": key(TEXT, "none, on-failure or any."),
                    "max_attempts": key(WHOLE, "After so many it is left as it is."),
                    "delay": key(
                        DURATION, "Time before a restart.", differs="by default, restarts back off from 0.1 s to 1 min"
                    ),
                    "window": key(DURATION, "Time after which a start counts as good.", differs="10 s if not given"),
                }
            ),
            "When a task that ended is started again.",
        ),
        "placement": key(
            record(
                {
                    "constraints": key(TEXTS, "What a node must be, in Swarm's grammar."),
                    "preferences": key(
                        listed(record({"spread": key(TEXT, "A label whose values are filled evenly.")})),
                        "How tasks are spread.",
                    ),
                    "max_replicas_per_node": key(WHOLE, "How many tasks one node takes."),
                }
            ),
            "Where tasks go.",
        ),
    },
    empty=True,
)
BUILD = record(
    {
        "context": key(TEXT, "The folder that is sent, or the address of a repository or a tar that the node fetches."),
        "dockerfile": key(TEXT, "The Dockerfile, in the context or outside of it."),
        "dockerfile_inline": key(TEXT, "The Dockerfile itself."),
        "args": key(PAIRS, "Values of ARG."),
        "target": key(TEXT, "The stage that becomes the image."),
        "labels": key(PAIRS, "Labels of the image."),
        "tags": key(TEXTS, "Further names of the image."),
        "no_cache": key(FLAG, "Build every step again."),
        "pull": key(FLAG, "Pull base images again."),
        "network": key(TEXT, "The network of RUN: host, none."),
        "additional_contexts": key(PAIRS, "Further contexts by name."),
        "cache_from": key(TEXTS, "Where steps are taken from: an image, `type=registry,ref=…`, `type=local,src=…`."),
        "cache_to": key(
            TEXTS, "Where steps are kept: `type=registry,ref=…`, `type=local,dest=…`, `type=inline`; `mode=max` for all stages."
        ),
        "entitlements": key(TEXTS, "Rights of the build: network.host, security.insecure."),
        "extra_hosts": key(HOSTS, "Names that RUN knows."),
        "isolation": key(TEXT, "Isolation of RUN.", refused=WINDOWS),
        "no_cache_filter": key(ONE_OR_MORE, "Stages that are built again."),
        "platforms": key(TEXTS, "Platforms to build for; RUN for others than the node's needs an emulator there."),
        "privileged": key(FLAG, "RUN with all capabilities."),
        "provenance": key({"type": ["string", "boolean"]}, "A statement of origin beside the image: true, `mode=max`."),
        "sbom": key({"type": ["string", "boolean"]}, "A list of parts beside the image, as SPDX."),
        "secrets": key(
            listed(
                either(
                    TEXT,
                    record(
                        {
                            "source": key(TEXT, "Which one, by its key at the top level; it needs file: or environment:."),
                            "target": key(TEXT, "What RUN calls it: id=NAME."),
                            **{
                                k: key(
                                    TEXT if k != "mode" else NUMBER,
                                    "Of its file.",
                                    refused="has no effect: RUN's options say it",
                                )
                                for k in ("uid", "gid", "mode")
                            },
                        }
                    ),
                )
            ),
            "Secrets that RUN sees.",
        ),
        "shm_size": key(WHOLE_SIZE, "Size of /dev/shm of RUN."),
        "ssh": key(PAIRS, "SSH agents that RUN sees: default, or NAME=SOCKET.", differs="sockets of agents, not files of keys"),
        "ulimits": key(ULIMITS, "Limits of RUN."),
    }
)
BANDWIDTH = record(
    {
        "ingress": key({"type": ["integer", "string"], "title": "a rate such as 20mbit"}, "What it may receive; unlimited."),
        "egress": key({"type": ["integer", "string"], "title": "a rate such as 20mbit"}, "What it may send; unlimited."),
        "burst": key(WHOLE_SIZE, "How much may pass at once; what the rate brings in 10 ms if not given."),
    }
)
ATTACHMENT = record(
    {
        "aliases": key(UNIQUE_TEXTS, "Further names on this network."),
        "ipv4_address": key(TEXT, "A fixed IPv4 address."),
        "ipv6_address": key(TEXT, "A fixed IPv6 address."),
        "link_local_ips": key(UNIQUE_TEXTS, "Further link-local addresses."),
        "mac_address": key(TEXT, "A fixed MAC address."),
        "interface_name": key(TEXT, "What the interface is called inside."),
        "gw_priority": key({"type": "number"}, "The highest has the default route."),
        "priority": key(
            {"type": "number"}, "The highest is attached first.", differs="the default route is gw_priority's alone"
        ),
        "driver_opts": key(
            DRIVER_OPTIONS,
            "Options of the driver for this endpoint.",
            differs="com.docker.network.endpoint.ifname and .sysctls",
        ),
        "x-bandwidth": key(BANDWIDTH, "Limits of bandwidth on this network."),
    },
    empty=True,
)
PORT = either(
    {"type": ["number", "string"]},
    record(
        {
            "target": key(WHOLE, "The container's port."),
            "published": key(WHOLE, "The host's port, or a range of which one is taken."),
            "host_ip": key(TEXT, "The host's address."),
            "protocol": key(TEXT, "tcp, udp or sctp."),
            "mode": key(TEXT, "ingress: any node answers; host: the task's node alone."),
            "name": key(TEXT, "A name for people."),
            "app_protocol": key(TEXT, "What is spoken there, for people."),
        }
    ),
    title="text or a mapping",
)
MOUNT = either(
    TEXT,
    record(
        {
            "type": key(
                words("bind", "volume", "tmpfs", "cluster", "npipe", "image"),
                "What is mounted.",
                differs="cluster and npipe are an error",
            ),
            "source": key(TEXT, "A volume's key, or a path of the node."),
            "target": key(TEXT, "Where in the container."),
            "read_only": key(FLAG, "Not to be written."),
            "consistency": key(TEXT, "A hint for Docker Desktop.", refused="has no effect on Linux"),
            "bind": key(
                record(
                    {
                        "propagation": key(TEXT, "How mounts below it are shared."),
                        "create_host_path": key(FLAG, "Make the folder where it is missing."),
                        "recursive": key(
                            words("enabled", "disabled", "writable", "readonly"),
                            "Whether mounts below come along.",
                            differs="writable and readonly are as enabled",
                        ),
                        "selinux": key(
                            words("z", "Z"), "The SELinux label that the source gets: z of all containers, Z of this one alone."
                        ),
                    }
                ),
                "Options of a bind mount.",
            ),
            "volume": key(
                record(
                    {
                        "nocopy": key(FLAG, "Do not fill it from the image."),
                        "subpath": key(TEXT, "A folder of the volume."),
                        "labels": key(
                            PAIRS,
                            "Labels of an anonymous volume.",
                            refused="has no effect: it is its container's, and has no name",
                        ),
                    }
                ),
                "Options of a volume.",
            ),
            "tmpfs": key(
                record(
                    {
                        "size": key({**WHOLE_SIZE, "minimum": 0}, "Its size."),
                        "mode": key(NUMBER, "Its permission bits."),
                    }
                ),
                "Options of a tmpfs.",
            ),
            "image": key(record({"subpath": key(TEXT, "A folder of the image.")}), "Options of an image."),
        },
        "type",
    ),
    title="text or a mapping",
)
DEPENDENCY = record(
    {
        "condition": key(words("service_started", "service_healthy", "service_completed_successfully"), "What it waits for."),
        "restart": key(FLAG, "Start again when the other one is changed."),
        "required": key(FLAG, "Whether it may be missing."),
    },
    "condition",
)
BLKIO_PATH = "A device of the node, a volume of the service, a path below one of its mounts, or / for its own layer."
BLKIO_RATES = listed(record({"path": key(TEXT, BLKIO_PATH), "rate": key(WHOLE, "Bytes or operations a second.")}))

_SHAPES = {
    Kind.FLAG: FLAG,
    Kind.TEXT: TEXT,
    Kind.WHOLE: WHOLE,
    Kind.SIZE: SIZE,
    Kind.WORDS: UNIQUE_TEXTS,
    Kind.WORD_OR_WORDS: ONE_OR_MORE,
    Kind.PAIRS: PAIRS,
}


def _plain(option: Option) -> Schema:
    """The key of a plain option."""
    bounds = {"minimum": option.low, "maximum": option.high} if option.kind is Kind.WHOLE else {}
    return key({**_SHAPES[option.kind], **bounds}, option.does, differs=option.differs)


INGRESS = listed(
    record(
        {
            "host": key(TEXT, "The name that clients ask for; `*.` in front stands for one further label."),
            "path": key(TEXT, "The path below which it answers, whole segments; / if not given."),
            "port": key(WHOLE, "The container's port."),
            "tcp": key(WHOLE, "In place of http: this port of every node; with host, for TLS connections that name it."),
            "udp": key(WHOLE, "In place of http: this port of every node."),
            "protocol": key(words("http", "h2c", "https"), "What the port speaks; h2c also for gRPC."),
            "strip_path": key(FLAG, "The service does not see `path`."),
            "sticky": key(words("cookie", "ip"), "A client stays with a task."),
            "weight": key(WHOLE, "The service's share, where several have one host and path; 1 if not given."),
            "tls": key(
                words("acme", "internal", "manual", "off"),
                "Where the certificate comes from; what `ingress up` says if not given.",
            ),
            "secret": key(TEXT, "With tls manual: the secret that has the chain and the key, as PEM."),
            "redirect": key(FLAG, "Requests by http are sent to https; true if not given."),
            "headers": key(
                record(
                    {
                        "request": key(DRIVER_OPTIONS, "Headers that the service gets; an empty one is taken away."),
                        "response": key(DRIVER_OPTIONS, "Headers that the client gets; an empty one is taken away."),
                    }
                ),
                "Headers that are set.",
            ),
            "basic_auth": key(TEXT, "The secret that has the users: lines of `htpasswd -B`."),
            "allow": key(UNIQUE_TEXTS, "Addresses and networks of clients; others get 403."),
            "body_limit": key(SIZE, "The largest body of a request; larger ones get 413."),
            "compress": key(FLAG, "Answers are sent as zstd or gzip to who takes them."),
            "rate_limit": key(TEXT, "Requests of one client address, 100/s, 100/m or 100/h; beyond them it gets 429."),
            "maintenance": key(TEXT, "What clients get in place of the service, with status 503."),
        },
        "port",
    )
)

SERVICE = record(
    {
        **{o.key: _plain(o) for o in OPTIONS if o.key},
        "image": key(TEXT, "The image."),
        "build": key(either(TEXT, BUILD), "How the image is built; text is its context."),
        "pull_policy": key(
            {
                **TEXT,
                "pattern": "^(always|never|build|if_not_present|missing|refresh|daily|weekly|every_.+)$",
                "title": "always, missing, never, build, refresh, daily, weekly or every_DURATION",
            },
            "When the image is pulled.",
        ),
        "pull_refresh_after": key(
            DURATION, "With pull_policy refresh: the age after which it is pulled again, a day if not given."
        ),
        "platform": key(TEXT, "os/arch that it needs.", differs="also decides which nodes can have it"),
        "command": key(COMMAND, "In place of the image's CMD."),
        "entrypoint": key(COMMAND, "In place of the image's ENTRYPOINT."),
        "environment": key(PAIRS, "Variables; one without a value comes from the client."),
        "env_file": key(
            either(
                TEXT,
                listed(
                    either(
                        TEXT,
                        record(
                            {
                                "path": key(TEXT, "The file."),
                                "required": key(FLAG, "Whether it may be missing."),
                                "format": key(TEXT, "raw: values stand as they are; else as in .env files."),
                            },
                            "path",
                        ),
                    )
                ),
            ),
            "Files of variables.",
        ),
        "group_add": key(listed({"type": ["string", "number"]}, unique=True), "Further groups."),
        "container_name": key(
            {**TEXT, "pattern": "[a-zA-Z0-9][a-zA-Z0-9_.-]+", "title": "two or more letters, digits, _ . -"},
            "What the container is called.",
        ),
        "labels": key(PAIRS, "Labels of the container."),
        "label_file": key(either(TEXT, TEXTS), "Files of labels."),
        "attach": key(FLAG, "Whether `up --attach` shows its output."),
        "security_opt": key(
            UNIQUE_TEXTS,
            "no-new-privileges, seccomp=FILE|unconfined|builtin|strict, apparmor=…, label=disable|user:…|role:…|type:…|level:…",
        ),
        "userns_mode": key(TEXT, "auto: a user namespace of its own; host: the node's."),
        "credential_spec": key(
            record(
                {
                    "config": key(TEXT, "A config."),
                    "file": key(TEXT, "A file."),
                    "registry": key(TEXT, "A registry key."),
                }
            ),
            "Credentials of a managed account.",
            refused=WINDOWS,
        ),
        "stop_grace_period": key(DURATION, "How long it may take then."),
        "restart": key(TEXT, "no, always, unless-stopped or on-failure[:N]."),
        "healthcheck": key(HEALTHCHECK, "How its health is seen."),
        "depends_on": key(
            either(UNIQUE_TEXTS, named(DEPENDENCY), title="a list or a mapping of services"),
            "What must be there first, on any node.",
        ),
        "links": key(UNIQUE_TEXTS, "Services that it knows by names of its own, and starts after."),
        "external_links": key(UNIQUE_TEXTS, "Containers outside the stack.", refused="has no effect: use an external network"),
        "cpus": key(NUMBER, "CPUs that it may use."),
        "cpu_shares": key(NUMBER, "Its weight where CPUs are short."),
        "cpu_period": key(NUMBER, "The CFS period, in microseconds."),
        "cpu_quota": key(NUMBER, "The CFS quota, in microseconds."),
        "x-cpu-burst": key(NUMBER, "How much of its CPU quota it may save up while it needs less: 20ms, or microseconds."),
        "cpu_rt_period": key(NUMBER, "The real-time period.", differs="only with cgroup v1 and CONFIG_RT_GROUP_SCHED"),
        "cpu_rt_runtime": key(NUMBER, "The real-time budget.", differs="as cpu_rt_period"),
        "cpu_count": key({**WHOLE, "minimum": 0}, "How many CPUs it sees.", refused=WINDOWS),
        "cpu_percent": key({**WHOLE, "minimum": 0, "maximum": 100}, "Which part of them.", refused=WINDOWS),
        "mem_reservation": key(WHOLE_SIZE, "Memory that is left to it where memory is short."),
        "memswap_limit": key(SIZE, "Memory and swap together."),
        "mem_swappiness": key(WHOLE, "How readily it is swapped out.", differs="kernels with cgroup v2 have no such control"),
        "pids_limit": key(NUMBER, "Processes that it may have."),
        "shm_size": key(SIZE, "Size of /dev/shm."),
        "blkio_config": key(
            record(
                {
                    "weight": key(WHOLE, "Its weight, 10 to 1000."),
                    "weight_device": key(
                        listed(record({"path": key(TEXT, BLKIO_PATH), "weight": key(WHOLE, "Its weight.")})),
                        "Weights by device.",
                    ),
                    "device_read_bps": key(BLKIO_RATES, "Bytes read a second."),
                    "device_read_iops": key(BLKIO_RATES, "Reads a second."),
                    "device_write_bps": key(BLKIO_RATES, "Bytes written a second."),
                    "device_write_iops": key(BLKIO_RATES, "Writes a second."),
                }
            ),
            "Limits of disk I/O.",
            differs="weights need a disk with the kernel's BFQ scheduler; cgroup v1 limits reads and direct writes alone",
        ),
        "storage_opt": key(
            {"type": "object", "additionalProperties": WHOLE_SIZE},
            "Options of the writable layer: its size.",
            differs="`size`, on nodes whose disk is ext4 or xfs mounted with prjquota; another option keeps the service from "
            "being started",
        ),
        "cgroup": key(words("host", "private"), "Its cgroup namespace."),
        "ulimits": key(ULIMITS, "Resource limits.", differs="clamped to what the node allows, with a warning"),
        "devices": key(
            listed(
                either(
                    TEXT,
                    record(
                        {
                            "source": key(TEXT, "The node's device."),
                            "target": key(TEXT, "Its name inside."),
                            "permissions": key(TEXT, "r, w and m."),
                        },
                        "source",
                    ),
                )
            ),
            "Devices of the node.",
        ),
        "gpus": key(
            either(
                words("all"),
                listed(
                    {
                        **REQUESTS["items"],
                        "required": [],
                        "additionalProperties": True,
                    }
                ),
            ),
            "GPUs that it needs; nodes describe theirs in CDI files.",
        ),
        "volumes": key(listed(MOUNT, unique=True), "What is mounted."),
        "tmpfs": key(ONE_OR_MORE, "Where memory is mounted."),
        "configs": key(GRANTS, "Configs, as files."),
        "secrets": key(GRANTS, "Secrets, as files in memory."),
        "network_mode": key(TEXT, "host, none, bridge, service:NAME or container:NAME."),
        "networks": key(
            either(UNIQUE_TEXTS, named(ATTACHMENT, any_name=True), title="a list or a mapping of networks"),
            "The networks that it is on.",
        ),
        "mac_address": key(TEXT, "MAC address on its first network."),
        "ports": key(
            listed(PORT, unique=True),
            "Ports that hosts answer for it.",
            differs="in a cluster every node answers, unless mode is host",
        ),
        "expose": key(
            listed({"type": ["string", "number"]}, unique=True),
            "Ports for others to know.",
            differs="as everywhere: all ports are open within a network",
        ),
        "extra_hosts": key(HOSTS, "Lines of /etc/hosts."),
        "dns_opt": key(UNIQUE_TEXTS, "Options of the resolver."),
        "pid": key({"type": ["string", "null"], "title": "text"}, "Its PID namespace."),
        "ipc": key(TEXT, "Its IPC namespace."),
        "isolation": key(TEXT, "How it is isolated.", refused=WINDOWS),
        "runtime": key(TEXT, "The OCI runtime.", differs="runc, crun, or one that `runtimes` in the node's config.yml names"),
        "logging": key(
            record(
                {
                    "driver": key(
                        TEXT,
                        "json-file, local, none, syslog or journald.",
                        differs="others are kept as json-file does, with a warning; `logs` reads those of all",
                    ),
                    "options": key(
                        named({"type": ["string", "number", "null"], "title": "text"}, any_name=True),
                        "max-size, max-file; of syslog also syslog-address, -facility, -format and tag.",
                    ),
                }
            ),
            "How its output is kept.",
        ),
        "pre_start": key(
            listed(
                record(
                    {
                        **HOOK,
                        "image": key(TEXT, "In which image; the service's own if not given."),
                        "per_replica": key(FLAG, "Once for each task.", refused="has no effect: it runs once for the service"),
                    }
                )
            ),
            "Containers that run to their ends, in turn, before it starts.",
        ),
        "post_start": key(listed(record(HOOK, "command")), "What is run after a start."),
        "pre_stop": key(listed(record(HOOK, "command")), "What is run before a stop."),
        "deploy": key(DEPLOY, "How many tasks, where, and with what."),
        "scale": key(WHOLE, "How many tasks."),
        "develop": key(WATCH, "For who works on it."),
        "profiles": key(UNIQUE_TEXTS, "Only with one of these profiles."),
        "extends": key(
            either(
                TEXT,
                record(
                    {
                        "service": key(TEXT, "The service that it is like."),
                        "file": key(TEXT, "The file that has it."),
                    },
                    "service",
                ),
            ),
            "Another service that it is like.",
        ),
        "models": key(
            either(
                UNIQUE_TEXTS,
                named(
                    record(
                        {
                            "endpoint_var": key(TEXT, "Variable for the address."),
                            "model_var": key(TEXT, "Variable for the name."),
                        },
                        empty=True,
                    ),
                    any_name=True,
                ),
            ),
            "Models that it uses.",
            differs="it gets their addresses before the stack is brought up",
        ),
        "provider": key(
            record(
                {
                    "type": key(TEXT, "The provider."),
                    "options": key(
                        named(
                            either(
                                {"type": ["string", "number", "boolean"]}, listed({"type": ["string", "number", "boolean"]})
                            ),
                            any_name=True,
                        ),
                        "Its options.",
                    ),
                },
                "type",
            ),
            "Somebody else provides it: a program on the client.",
            differs="it is asked before the stack is brought up",
        ),
        "use_api_socket": key({"type": "boolean"}, "With the engine's API inside.", differs="the API of the agent of its node"),
        "x-placement": key(
            record(
                {
                    "constraints": key(TEXTS, "What Swarm's grammar cannot say: in, exists, matches, <, >=."),
                    "near": key(ONE_OR_MORE, "Services that must be on the same node."),
                    "away": key(ONE_OR_MORE, "Services that must not be."),
                    "tolerations": key(TEXTS, "Taints of nodes that do not keep it off: KEY, KEY=VALUE, or * for all."),
                }
            ),
            "Where tasks go, further than deploy.placement.",
        ),
        "x-fence": key(
            either(TEXT, DURATION),
            "strict, or how long a task waits for the control plane after a boot of its node: 15s.",
        ),
        "x-ingress-mode": key(
            words("local-first", "balanced"),
            "Where a node sends connections to published ports: to tasks of its own if it has some, or to all alike.",
        ),
        "x-bandwidth": key(BANDWIDTH, "Limits of bandwidth on each of its networks."),
        "x-harden": key(
            words("default", "strict"),
            "strict: no capability but those of cap_add, no new privileges, fewer system calls, a read-only root with /tmp, "
            "/run and /var/tmp in memory, a user namespace, 1024 processes; what the service sets of these counts.",
        ),
        "x-job": key(
            record(
                {
                    "total_completions": key(WHOLE, "How many tasks must end well; deploy.replicas by another name."),
                    "max_concurrent": key(WHOLE, "How many run at a time; all, if not given."),
                    "keep": key(WHOLE, "How many of the last runs are remembered, with the end of their output: 10."),
                    "deadline": key(DURATION, "A run that takes longer is stopped, and has failed."),
                }
            ),
            "For work that ends: deploy.mode replicated-job or global-job.",
        ),
        "x-schedule": key(
            either(
                TEXT,
                record(
                    {
                        "cron": key(TEXT, "When: minute, hour, day of the month, month, day of the week; or @daily and such."),
                        "timezone": key(TEXT, "The time zone, such as Europe/Berlin; UTC if not given."),
                        "concurrency": key(
                            words("forbid", "allow", "replace"), "What a run does while the one before it still runs: forbid."
                        ),
                        "missed": key(
                            words("run-once", "skip"),
                            "What becomes of times at which no server led: run-once makes up for one.",
                        ),
                        "deadline": key(DURATION, "A run that cannot begin so long after its time is missed."),
                        "history": key(WHOLE, "How many of the last runs are remembered: 10."),
                    },
                    "cron",
                ),
                title="a cron line, or a mapping that has one",
            ),
            "Runs at these times, and not in between.",
        ),
        "x-hooks": key(
            record(
                {
                    "pre_deploy": key(DEPLOY_HOOK, "Once before its tasks are exchanged; if it fails, nothing is."),
                    "post_deploy": key(DEPLOY_HOOK, "Once after they were, all of them."),
                }
            ),
            "Commands that run once for each new definition of the service.",
        ),
        "x-update": key(
            record(
                {
                    "strategy": key(words("canary", "blue-green"), "A few new tasks first, or all beside the old ones."),
                    "steps": key(
                        listed(
                            record(
                                {
                                    "weight": key(PERCENT, "The part of new connections that new tasks get."),
                                    "hold": key(DURATION, "How long that is watched."),
                                },
                                "weight",
                            )
                        ),
                        "Of a canary, one after the other; then all tasks are exchanged.",
                    ),
                    "hold": key(DURATION, "Of blue-green: how long the old tasks stay, for an instant way back."),
                    "abort_on": key(
                        record(
                            {
                                "health": key(FLAG, "A new task that ends or is unhealthy.", differs="it always does"),
                                "error_rate": key(PERCENT, "More requests that ingress got no answer or a 5xx for than this."),
                                "p99": key(
                                    DURATION, "More than one request in a hundred that waits longer for its answer to begin."
                                ),
                            }
                        ),
                        "What takes the update back.",
                    ),
                    "analysis": key(DEPLOY_HOOK, "What is run at the end of each step; if it fails, the update is taken back."),
                },
                "strategy",
            ),
            "How its tasks are exchanged, further than deploy.update_config.",
        ),
        "x-scale": key(
            record(
                {
                    "min": key(WHOLE, "The fewest replicas; 0 with a query."),
                    "max": key(WHOLE, "The most."),
                    "target": key(
                        record(
                            {
                                "cpu": key(PERCENT, "Of its reserved cores, of its limit, or of one."),
                                "memory": key(PERCENT, "Of its reserved memory, or of its limit."),
                                "rps": key(NUMBER, "Requests a second, as ingress forwards them."),
                                "query": key(
                                    either(
                                        TEXT,
                                        record(
                                            {
                                                "promql": key(TEXT, "What Prometheus is asked: a scalar, or one series."),
                                                "value": key(NUMBER, "So much of the result for each replica; 1 if not given."),
                                            },
                                            "promql",
                                        ),
                                    ),
                                    "The Prometheus of config.yml is asked; its answer is for all replicas together.",
                                ),
                            }
                        ),
                        "What each replica should use.",
                    ),
                    "up": key(SCALE_RATE, "How fast replicas come."),
                    "down": key(SCALE_RATE, "How fast they go."),
                },
                "max",
                "target",
            ),
            "As many replicas as their use asks for.",
        ),
        "x-stable": key(
            either(FLAG, record({"start": key(words("ordered", "parallel"), "One after the other, or side by side.")})),
            "Each replica has a name (`db-1`, `db-1.db`) and volumes of its own; they start and are exchanged in order.",
        ),
        "x-priority": key(
            WHOLE,
            "From -1,000,000 to 1,000,000, 0 if not given: where not all fits, its tasks take the place of those of less.",
        ),
        "x-ingress": key(INGRESS, "Hosts and paths at which `pystack ingress` answers for it."),
        "x-build": key(
            record(
                {
                    "node": key(
                        TEXT, "A node's name, or one of its labels: NAME or NAME=VALUE; its image is copied to where it runs."
                    ),
                    "memory": key(SIZE, "What each RUN may use."),
                    "cpus": key(NUMBER, "CPUs that each RUN may use."),
                    "timeout": key(DURATION, "The build fails if it takes longer."),
                }
            ),
            "Where it is built, and what that may cost.",
        ),
        "x-metrics": key(
            record(
                {
                    "port": key(WHOLE, "The container's port."),
                    "path": key(TEXT, "Where it answers; /metrics if not given."),
                },
                "port",
            ),
            "Where each of its tasks answers with metrics of its own: Prometheus finds them at `/v1/sd`.",
        ),
    }
)

NETWORK = record(
    {
        "name": key(TEXT, "Its name; STACK_KEY if not given."),
        "driver": key(
            TEXT,
            "bridge, overlay, macvlan, ipvlan, host, none, or a plugin's.",
            differs="an overlay on several nodes, a bridge on one, if not given",
        ),
        "driver_opts": key(DRIVER_OPTIONS, "Options of the driver."),
        "ipam": key(
            record(
                {
                    "driver": key(TEXT, "Who gives addresses out.", refused="has no effect: the plan gives addresses out"),
                    "config": key(
                        listed(
                            record(
                                {
                                    "subnet": key(TEXT, "CIDR."),
                                    "ip_range": key(TEXT, "The part of it that is given out."),
                                    "gateway": key(TEXT, "The host's, or the router's, address."),
                                    "aux_addresses": key(named(TEXT, any_name=True), "Addresses that others have."),
                                }
                            )
                        ),
                        "Address pools.",
                    ),
                    "options": key(named(TEXT, any_name=True), "Its options.", refused="has no effect"),
                }
            ),
            "Its addresses.",
        ),
        "external": key(EXTERNAL, "It is there already."),
        "internal": key(FLAG, "No way out of it."),
        "enable_ipv4": key(FLAG, "With IPv4.", refused="has no effect: a network always has IPv4"),
        "enable_ipv6": key(FLAG, "With IPv6."),
        "attachable": key(FLAG, "Open to containers of no stack.", differs="every network is"),
        "labels": key(PAIRS, "Its labels."),
        "x-bandwidth": key(BANDWIDTH, "Limits of bandwidth of each service on it."),
    },
    empty=True,
)
BACKUP_COMMAND = record(
    {"service": key(TEXT, "In a task of which service; the only one that mounts it if not given."), **HOOK}, "command"
)
BACKUP = record(
    {
        "to": key(TEXT, "Where: a folder of the node, sftp:USER@HOST:/PATH, s3:https://HOST/BUCKET, rclone:REMOTE:PATH."),
        "password": key(TEXT, "The key of a secret, with which backups are encrypted."),
        "credentials": key(TEXT, "The key of a secret with variables, a NAME=VALUE a line, such as AWS_ACCESS_KEY_ID."),
        "ssh_key": key(TEXT, "The key of a secret: the private key for an sftp server."),
        "known_hosts": key(TEXT, "The key of a secret: the sftp server's line of known_hosts."),
        "rclone": key(TEXT, "The key of a secret: rclone's configuration."),
        "cron": key(TEXT, "When, as in x-schedule: @daily. `never` leaves it to `pystack volume backup`."),
        "timezone": key(TEXT, "The time zone; UTC if not given."),
        "keep": key(
            record({rule: key(WHOLE, f"So many of the {rule} ones.") for rule in KEEP}),
            "What stays: 7 daily, 4 weekly and 12 monthly ones.",
        ),
        "before": key(BACKUP_COMMAND, "What is run before it is read; a failure is one of the backup."),
        "after": key(BACKUP_COMMAND, "What is run after, even if the backup failed."),
        "pause": key(FLAG, "Those who use it stand still while it is read."),
        "verify": key(TEXT, "When the newest one is brought back to the side and compared: @monthly, or never."),
        "history": key(WHOLE, "How many of the last runs are remembered: 10."),
    },
    "to",
    "password",
)
VOLUME = record(
    {
        "name": key(TEXT, "Its name; STACK_KEY if not given."),
        "driver": key(TEXT, "local, sshfs, nfs, cifs or glusterfs."),
        "driver_opts": key(DRIVER_OPTIONS, "Options of the driver."),
        "external": key(EXTERNAL, "It is there already."),
        "labels": key(PAIRS, "Its labels."),
        "x-volume": key(record({"follow": key(FLAG, "Its data goes along where its users go.")}), "What becomes of its data."),
        "x-backup": key(BACKUP, "Its content is kept elsewhere too."),
    },
    empty=True,
)
CONTENT = {
    "name": key(TEXT, "Its name; STACK_KEY if not given."),
    "file": key(TEXT, "A file of the client."),
    "environment": key(TEXT, "A variable of the client."),
    "external": key(EXTERNAL, "Made by hand before."),
    "labels": key(PAIRS, "Its labels.", refused="has no effect: it is known by its content"),
    "template_driver": key(TEXT, "How it is filled in: golang.", differs="if, else and functions; no range and with"),
}
CONFIG = record({**CONTENT, "content": key(TEXT, "The content itself.")})
SECRET = record(
    {
        **CONTENT,
        "driver": key(TEXT, "Who keeps it.", refused="has no effect: pystack keeps it, sealed"),
        "driver_opts": key(DRIVER_OPTIONS, "Options of that one.", refused="has no effect: pystack keeps it, sealed"),
    }
)
MODEL = record(
    {
        "name": key(TEXT, "What it is called.", refused="has no effect: a model is known by its key"),
        "model": key(TEXT, "Which one."),
        "context_size": key({"type": "integer"}, "Its context."),
        "runtime_flags": key(TEXTS, "Options of its engine."),
    },
    "model",
)
INCLUDE = either(
    TEXT,
    record(
        {
            "path": key(ONE_OR_MORE, "Files, merged in this order."),
            "env_file": key(ONE_OR_MORE, "Its own variables."),
            "project_directory": key(TEXT, "Its own folder."),
        }
    ),
)
POLICY = record(
    {
        "signed": key(
            listed(
                record(
                    {
                        "images": key(ONE_OR_MORE, "Patterns of full names, such as registry.example/team/*; all by default."),
                        "keys": key(ONE_OR_MORE, "Public keys in PEM (ECDSA, Ed25519), or files of the client with one."),
                    },
                    "keys",
                )
            ),
            "Images must have a signature in cosign's format, beside them in their registry.",
        ),
        "registries": key(ONE_OR_MORE, "Patterns of names that images may have: registry.example, docker.io/library/*."),
        "latest": key(FLAG, "false: no image by the tag latest."),
        "root": key(FLAG, "false: no image that runs as root, unless the service names another user."),
        "max_age": key(TEXT, "How old an image may be: 90d, 12h, 4w."),
        "locked": key(FLAG, "true: no image without its entry in stack.lock."),
    }
)
FILE = record(
    {
        "x-policy": key(POLICY, "What images must be; plan refuses others, and so does each node at each start."),
        "version": key(TEXT, "Of old files.", differs="as in Docker Compose it has no effect"),
        "name": key(TEXT, "The stack's name."),
        "include": key(listed(INCLUDE), "Files that are part of this one."),
        "services": key(named(ref("service")), "What runs."),
        "networks": key(named(ref("network"), any_name=True), "What services are on."),
        "volumes": key(named(ref("volume")), "Where services keep data."),
        "configs": key(named(ref("config")), "Files that services are given."),
        "secrets": key(named(ref("secret")), "Files that services are given in memory."),
        "models": key(
            named(ref("model"), any_name=True),
            "Models that services use.",
            differs="a program provides them: docker-model in PATH, or one that answers as it does",
        ),
    }
)
DEFS = {"service": SERVICE, "network": NETWORK, "volume": VOLUME, "config": CONFIG, "secret": SECRET, "model": MODEL}


def document() -> Schema:
    """The whole, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pystack stack file",
        "description": "Compose Specification, with keys of pystack's own, which begin with x-.",
        **FILE,
        "$defs": DEFS,
    }
