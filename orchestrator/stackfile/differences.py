"""Where a stack file is read otherwise than Docker Compose reads it, each on purpose: a part of docs/compose.md."""

READING = """
## How files are read

As Docker Compose 5 reads them, with these differences, each on purpose.

"""
DIFFERENCES: tuple[tuple[str, str, str], ...] = (
    (
        "a mistake",
        "the first one, without a line",
        "all of them, each with file, line and column",
    ),
    (
        "two services that publish one port, a port of one address with replicas",
        "fails in the middle of `up`",
        "refused before `up` begins; `config` shows the file",
    ),
    (
        "a path of Windows, `type: npipe` and `cluster`, a volume's driver or a secret's that is not here, a target that "
        "is not an absolute path, and other values that the engine alone knows: `restart`, `deploy.mode`, `endpoint_mode`, "
        "`failure_action`, `restart_policy.condition`, `placement`, `devices`, `userns_mode`, addresses of hosts and "
        "MAC addresses, and pools, options, MTUs and sizes of networks and volumes",
        "left to the engine",
        "`config` shows it; the service that has it is not started, with the line that says why",
    ),
    (
        "`external: true` beside other keys",
        "refused for volumes, passed for networks, configs and secrets",
        "refused; a warning for networks; `template_driver`, `driver`, `driver_opts` and `labels` pass for configs and secrets",
    ),
    (
        "one list that has an entry twice (ports, targets of mounts, configs and secrets, variables)",
        "the last one counts",
        "so here, and a mount, config or secret that is lost to it is reported",
    ),
    (
        "lists that two files say the same of (`security_opt`, `group_add`, `volumes_from`, `depends_on`)",
        "refused as not unique",
        "reported once",
    ),
    (
        "`tmpfs` for one target in two files",
        "both, and refused",
        "the later one",
    ),
    (
        "`environment: {A: !reset null}` over a list of NAME=VALUE",
        "the variable stays",
        "it goes",
    ),
    (
        "a config or secret whose file or variable is not there",
        "an error when a service that has it starts",
        "`config` shows it; `up` is refused, also for other services: what the stack had before would be lost",
    ),
    (
        "an unknown option of a mount (`v:/x:what`)",
        "passed over",
        "a warning",
    ),
    (
        "two included files about one service",
        "merged",
        "merged, the later above; reported",
    ),
    (
        "a file about what it includes",
        "merged, the file above",
        "so here",
    ),
    (
        "`network_mode: NAME` of another network",
        "the engine's network of that name",
        "so here: it must exist",
    ),
    (
        "a single letter before a colon (`v:/data`)",
        "a drive of Windows",
        "a volume, unless a backslash or a second path follows",
    ),
    (
        "a range for one port (`8080-8082:80`)",
        "each container takes a free port of it",
        "each task a port of its own that no other task on its node has; where any node answers for the service, every "
        "port of the range answers, balanced",
    ),
    (
        "templates of Swarm (`{{.Task.Slot}}`)",
        "as they are",
        "filled in as Swarm does, in hostname, environment and mounts; braces that name neither .Service, .Node nor .Task "
        "stay as they are; `range` and `with` are refused",
    ),
    (
        "`.Service.ID`, `.Task.ID`",
        "random, new for each task",
        "made of names: a second `up` has nothing to do",
    ),
    (
        "`models`",
        "the plugin docker-model",
        "any program of that name",
    ),
    (
        "a plan of what providers give (`provider`, `models`)",
        "there is no plan",
        "`plan` and `up --dry-run` run none, since their protocol has no question that changes nothing; they say which would "
        "be run, and take each to give what it gave before",
    ),
    (
        "containers of `run`",
        "templates of Swarm stay as they are",
        "they are filled in, with the slot of the first replica; `max_replicas_per_node` does not count them",
    ),
)
