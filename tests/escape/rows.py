"""The table of attacks: what is tried, what holds it, and how that is put off to show that the attack is a real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """An attack from inside a container. *attack* is a function of inside.py; it is tried in the container *on*, where it must
    fail with one of *answers*, and in the container *off*, where it must succeed. Both name rows of CONTAINERS."""

    attack: str
    what: str
    guard: str
    off: str
    on: str = "default"
    answers: tuple[str, ...] = ("EPERM",)


@dataclass(frozen=True)
class Reference:
    """An attack that another test makes, with its guard and without."""

    name: str
    what: str
    guard: str
    off: str
    test: str
    """As pytest names it."""


CAPABILITIES = (
    "SYS_BOOT",
    "SYS_TIME",
    "SYS_MODULE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TTY_CONFIG",
    "SYS_NICE",
    "SYSLOG",
    "BPF",
    "PERFMON",
    "DAC_READ_SEARCH",
    "NET_ADMIN",
    "LINUX_IMMUTABLE",
)
CONTAINERS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "privileged": {"privileged": True},
    "admin": {"cap_add": ["SYS_ADMIN"]},
    "capable": {"cap_add": CAPABILITIES, "volumes": ["@kept:/kept:ro"]},
    "unconfined": {"security_opt": ["seccomp=unconfined"]},
    "admin unconfined": {"cap_add": ["SYS_ADMIN"], "security_opt": ["seccomp=unconfined"]},
    "devices": {"device_cgroup_rules": ["a *:* rwm"]},
    "devices net": {"device_cgroup_rules": ["a *:* rwm"], "cap_add": ["NET_ADMIN"]},
    "devices admin": {"device_cgroup_rules": ["a *:* rwm"], "cap_add": ["SYS_ADMIN"]},
    "host pid": {"pid": "host"},
    "host pid capable": {"pid": "host", "cap_add": ["SYS_PTRACE", "SYS_ADMIN"]},
    "host ipc": {"ipc": "host"},
    "host uts": {"uts": "host"},
    "host network": {"network_mode": "host"},
    "rebound": {"extra_hosts": ["rebound.example:@address"]},
    "rebound host network": {"extra_hosts": ["rebound.example:@address"], "network_mode": "host"},
    "with socket": {"volumes": ["@socket:/run/docker.sock"]},
    "bound": {"volumes": ["@kept:/kept:ro"]},
    "bound admin": {"volumes": ["@kept:/kept:ro"], "cap_add": ["SYS_ADMIN"]},
    "bound writable": {"volumes": ["@kept:/kept"]},
    "userns": {"userns_mode": "auto", "volumes": ["@kept:/kept:ro"]},
    "user": {"user": "app"},
    "user admin": {"user": "app", "cap_add": ["SYS_ADMIN"]},
    "user without new rights": {"user": "app", "security_opt": ["no-new-privileges"]},
    "read only": {"read_only": True},
    "small": {
        "pids_limit": 40,
        "mem_limit": "96m",
        "memswap_limit": "96m",
        "ulimits": {"nofile": 64, "fsize": 1 << 20},
        "tmpfs": ["/small:size=1m,nr_inodes=100"],
    },
    "large": {"shm_size": "128m", "tmpfs": ["/small:size=64m,nr_inodes=100000"]},
    "own hosts": {"volumes": ["@kept/file:/etc/hosts"]},
    "told": {"environment": {"TOKEN": "@secret"}},
}
"""Containers by the keys of a stack file that differ from the default; "chroot" besides, which is none. @kept is a folder of
the host, with a file of everybody's and one of root's; @socket is the agent's; @address and @secret are the host's."""

ADMIN = "no CAP_SYS_ADMIN; seccomp"
ROWS = (
    # mounts and roots
    Row("mount_tmpfs", "mounts a file system", ADMIN, "admin"),
    Row("mount_by_fsopen", "mounts by the new calls", ADMIN, "admin"),
    Row("clone_mount", "clones a mount by open_tree", ADMIN, "admin"),
    Row("mount_proc_anew", "mounts /proc again, without what protects it", ADMIN, "admin"),
    Row("umount_mask", "unmounts what hides /proc/timer_list", ADMIN, "admin"),
    Row("remount_sys", "makes /sys writable", ADMIN, "admin"),
    Row("remount_read_only_bind", "makes a read-only bind mount writable", ADMIN, "bound admin", on="bound"),
    Row(
        "write_read_only_bind",
        "writes to a read-only bind mount",
        "the mount is read-only",
        "bound writable",
        on="bound",
        answers=("EROFS",),
    ),
    Row("mount_debugfs", "mounts debugfs, which shows and changes the kernel", ADMIN, "admin"),
    Row("mount_block_device", "mounts the host's disk", ADMIN, "devices admin"),
    Row("mount_own_cgroup", "mounts its control group again, and allows itself devices", ADMIN, "admin"),
    Row("release_agent", "mounts a cgroup hierarchy and names a program that the kernel runs as root", ADMIN, "chroot"),
    Row("pivot_root", "changes its root", "seccomp", "admin unconfined"),
    Row("quotactl", "changes quotas of the host's disk", ADMIN, "admin"),
    Row("swapon", "makes a file swap space", "no CAP_SYS_ADMIN; seccomp", "admin unconfined"),
    Row("swapoff", "takes the host's swap away", "no CAP_SYS_ADMIN; seccomp", "admin unconfined"),
    Row(
        "trim_host_disk",
        "orders the file system of a bind mount to discard blocks",
        "no CAP_SYS_ADMIN",
        "bound admin",
        on="bound",
    ),
    Row("make_immutable", "makes a file that the host cannot remove", "no CAP_LINUX_IMMUTABLE", "capable"),
    Row("open_by_handle", "opens a file of the host by its handle", "no CAP_DAC_READ_SEARCH; seccomp", "capable", on="bound"),
    # namespaces
    Row("unshare_user", "makes a user namespace, where it has all capabilities", "seccomp", "unconfined"),
    Row("clone_user", "the same by clone", "seccomp, the flags of clone", "unconfined"),
    Row(
        "clone3_user",
        "the same by clone3, whose flags a filter cannot see",
        "seccomp: there is no clone3",
        "unconfined",
        answers=("ENOSYS",),
    ),
    Row("netfilter_of_a_user_namespace", "reaches nf_tables through a user namespace", "seccomp", "unconfined"),
    Row("unshare_mount", "makes a mount namespace", ADMIN, "admin"),
    Row("unshare_net", "makes a network namespace", ADMIN, "admin"),
    Row(
        "setns_host_mounts",
        "enters the mount namespace of a process of the host",
        "PID namespace",
        "host pid capable",
        answers=("no such process",),
    ),
    Row("sethostname", "renames the host", ADMIN, "admin"),
    Row("setdomainname", "renames the host's domain", ADMIN, "admin"),
    # processes of the host
    Row("kill_host_process", "signals a process of the host", "PID namespace", "host pid", answers=("no such process",)),
    Row("kill_everybody", "signals all processes at once", "PID namespace", "host pid", answers=("ESRCH",)),
    Row(
        "ptrace_host_process",
        "traces a process of the host",
        "PID namespace; no CAP_SYS_PTRACE",
        "host pid capable",
        answers=("no such process",),
    ),
    Row(
        "read_host_memory",
        "reads the memory of a process of the host",
        "PID namespace; no CAP_SYS_PTRACE",
        "host pid capable",
        answers=("no such process",),
    ),
    Row(
        "read_host_environment",
        "reads the environment of a process of the host",
        "PID namespace; no CAP_SYS_PTRACE",
        "host pid capable",
        answers=("no such process",),
    ),
    Row(
        "read_host_root",
        "reads files of the host through /proc/PID/root",
        "PID namespace; no CAP_SYS_PTRACE",
        "host pid capable",
        answers=("no such process",),
    ),
    Row(
        "take_host_descriptor",
        "takes a descriptor of a process of the host",
        "PID namespace; no CAP_SYS_PTRACE; seccomp",
        "host pid capable",
        answers=("no such process",),
    ),
    Row(
        "doom_host_process",
        "makes a process of the host the first to be killed",
        "PID namespace",
        "host pid",
        answers=("no such process",),
    ),
    Row("raise_priority", "takes precedence over the host", "no CAP_SYS_NICE", "capable", answers=("EACCES", "EPERM")),
    Row("realtime_disk", "takes the disk for itself", "no CAP_SYS_NICE", "capable"),
    Row("kcmp", "compares kernel objects of processes", "no CAP_SYS_PTRACE; seccomp", "capable"),
    Row("process_madvise", "pushes memory of another process out", "no CAP_SYS_PTRACE; seccomp", "capable"),
    Row("move_pages", "moves memory between nodes", "seccomp", "unconfined"),
    Row("set_mempolicy", "sets where memory comes from", "no CAP_SYS_NICE; seccomp", "capable"),
    # other namespaces
    Row(
        "read_host_shared_memory",
        "attaches System V shared memory of the host",
        "IPC namespace",
        "host ipc",
        answers=("EINVAL", "EIDRM", "no secret there"),
    ),
    Row("read_host_dev_shm", "reads /dev/shm of the host", "a /dev/shm of its own", "host ipc", answers=("ENOENT",)),
    Row("host_name", "learns the host's name", "UTS namespace", "host uts", answers=("a name of its own",)),
    Row(
        "host_abstract_socket",
        "connects to an abstract socket of the host",
        "network namespace",
        "host network",
        answers=("ECONNREFUSED",),
    ),
    Row(
        "host_loopback",
        "connects to a service on the host's 127.0.0.1",
        "network namespace",
        "host network",
        answers=("ECONNREFUSED",),
    ),
    Row(
        "rebound_name",
        "connects to a service of the host by a name that leads there",
        "nodes are closed to containers",
        "rebound host network",
        on="rebound",
        answers=("ECONNREFUSED",),
    ),
    Row("sniff_host_link", "reads packets of the host", "network namespace", "host network", answers=("no such link",)),
    Row("sockets_of_the_host", "finds unix sockets of the host", "network namespace", "host network", answers=("none",)),
    Row("change_link", "changes a network link", "no CAP_NET_ADMIN", "capable"),
    Row("change_firewall", "changes the firewall of its network namespace", "no CAP_NET_ADMIN", "capable"),
    Row("api_socket", "asks the API of agent or server", "no socket in the container", "with socket", answers=("no socket",)),
    # devices
    Row("open_host_disk", "makes a node of the host's disk and reads it", "devices cgroup", "devices"),
    Row("open_disk_of_the_image", "opens a node of the host's disk that its image brought", "devices cgroup", "devices"),
    Row("open_kernel_log", "writes to the kernel's log", "devices cgroup", "devices"),
    Row("make_tap", "makes a network device", "devices cgroup; no CAP_NET_ADMIN", "devices net"),
    Row("open_fuse", "opens /dev/fuse", "devices cgroup", "devices"),
    Row("open_loop_control", "makes a loop device", "devices cgroup", "devices"),
    Row("open_console", "opens a console of the host", "devices cgroup", "devices"),
    Row("make_node", "makes a device node", "user namespace", "default", on="userns"),
    # /proc, /sys and control groups
    Row(
        "write_core_pattern",
        "names the program that the kernel runs for a core dump",
        "/proc/sys is read-only",
        "privileged",
        answers=("EROFS",),
    ),
    Row("write_modprobe", "names a program that the kernel runs", "/proc/sys is read-only", "privileged", answers=("EROFS",)),
    Row("write_panic", "sets what the kernel does in a panic", "/proc/sys is read-only", "privileged", answers=("EROFS",)),
    Row("write_net_sysctl", "makes itself a router", "/proc/sys is read-only", "privileged", answers=("EROFS",)),
    Row(
        "write_sysrq_or_irq",
        "gives the kernel orders by /proc/sysrq-trigger, or moves interrupts",
        "read-only paths",
        "privileged",
        answers=("EROFS",),
    ),
    Row("write_sys", "changes settings in /sys (uevent_helper, power)", "/sys is read-only", "privileged", answers=("EROFS",)),
    Row("write_uevent", "forges an event of a device", "/sys is read-only", "privileged", answers=("EROFS",)),
    Row("write_memory_settings", "changes how the kernel shares memory", "/sys is read-only", "privileged", answers=("EROFS",)),
    Row("read_kcore", "reads the kernel's memory", "masked paths", "privileged", answers=("it is empty",)),
    Row("read_interrupts", "counts interrupts, and so keystrokes", "masked paths", "privileged", answers=("it is empty",)),
    Row("read_keys", "lists keys of the kernel", "masked paths", "privileged", answers=("it is empty",)),
    Row("read_timers", "lists timers of the kernel with addresses", "masked paths", "privileged", answers=("it is empty",)),
    Row("list_acpi", "reads tables of the firmware", "masked paths", "privileged", answers=("it is empty",)),
    Row("read_kernel_addresses", "reads addresses in /proc/kallsyms", "no CAP_SYSLOG", "capable", answers=("all are 0",)),
    Row("read_kernel_log", "reads the kernel's log", "no CAP_SYSLOG; seccomp", "capable"),
    Row("raise_own_limit", "raises its memory limit", "/sys/fs/cgroup is read-only", "privileged", answers=("EROFS",)),
    Row("allow_own_devices", "allows itself all devices", "/sys/fs/cgroup is read-only", "privileged", answers=("EROFS",)),
    # the kernel's other doors
    Row("add_key", "adds a key", "seccomp", "unconfined"),
    Row("request_key", "has the kernel run a program to get a key", "seccomp", "unconfined"),
    Row("keyctl", "asks the kernel for keys", "seccomp", "unconfined"),
    Row("keyctl_of_32_bits", "the same by the door for 32-bit programs", "seccomp, for all architectures", "unconfined"),
    Row("keyctl_of_x32", "the same by the numbers of x32", "seccomp, for all architectures", "unconfined"),
    Row("bpf", "loads a program into the kernel", "no CAP_BPF; seccomp", "capable"),
    Row("perf_event_open", "watches the processor", "no CAP_PERFMON; seccomp", "capable"),
    Row("userfaultfd", "answers page faults, which makes races of the kernel easy", "seccomp", "unconfined"),
    Row("io_uring_setup", "makes calls that no filter sees", "seccomp", "unconfined"),
    Row("fanotify_init", "watches the host's files", ADMIN, "admin"),
    Row("kexec_load", "starts another kernel", "no CAP_SYS_BOOT; seccomp", "admin unconfined"),
    Row("kexec_file_load", "starts another kernel, from a file", "no CAP_SYS_BOOT; seccomp", "admin unconfined"),
    Row("init_module", "loads a module", "no CAP_SYS_MODULE; seccomp", "capable"),
    Row("finit_module", "loads a module from a file", "no CAP_SYS_MODULE; seccomp", "capable"),
    Row("delete_module", "takes a module out", "no CAP_SYS_MODULE; seccomp", "capable"),
    Row("reboot", "restarts the machine", "no CAP_SYS_BOOT; seccomp", "capable"),
    Row("clock_settime", "sets the clock", "no CAP_SYS_TIME; seccomp", "capable"),
    Row("settimeofday", "sets the clock by the old call", "no CAP_SYS_TIME; seccomp", "capable"),
    Row("adjust_clock", "makes the clock go wrong", "no CAP_SYS_TIME", "capable"),
    Row("acct", "has the kernel write about processes", "no CAP_SYS_PACCT; seccomp", "capable"),
    Row("iopl", "opens all ports of the machine", "no CAP_SYS_RAWIO; seccomp", "capable"),
    Row("ioperm", "opens a port of the machine", "no CAP_SYS_RAWIO; seccomp", "capable"),
    Row("vhangup", "hangs the terminal up", "no CAP_SYS_TTY_CONFIG; seccomp", "capable"),
    Row("personality", "switches off what makes addresses unknown", "seccomp", "unconfined"),
    Row("nfsservctl", "speaks to the kernel's NFS server", "seccomp", "unconfined"),
    Row("obsolete_calls", "makes calls that nobody needs", "seccomp", "unconfined"),
    Row("vsock", "speaks to the hypervisor", "seccomp", "unconfined"),
    Row("kernel_crypto_socket", "opens a socket of AF_ALG", "seccomp", "unconfined"),
    # programs with more rights
    Row(
        "set_user_id_program",
        "becomes root by a set-user-ID program",
        "no_new_privs",
        "user",
        on="user without new rights",
        answers=("as who it was",),
    ),
    Row(
        "file_capability",
        "gets CAP_SYS_ADMIN by a program that its image brought",
        "bounding set",
        "user admin",
        on="user",
        answers=("no capability", "it does not run"),
    ),
    Row(
        "capabilities_of_a_user",
        "has capabilities without being root",
        "none in force, none to inherit",
        "default",
        on="user",
        answers=("none",),
    ),
    Row(
        "read_files_of_the_hosts_root",
        "reads a file of the host's root in a bind mount",
        "user namespace",
        "bound",
        on="userns",
        answers=("EACCES",),
    ),
    Row("write_image", "changes a program of its image", "read-only root", "default", on="read only", answers=("EROFS",)),
    # bombs
    Row("fork_bomb", "makes processes without end", "pids_limit", "default", on="small", answers=("EAGAIN",)),
    Row("memory_bomb", "takes memory without end", "mem_limit", "default", on="small", answers=("SIGKILL",)),
    Row("descriptor_bomb", "opens descriptors without end", "ulimits", "default", on="small", answers=("EMFILE",)),
    Row(
        "raise_descriptor_limit",
        "raises its own limit",
        "no CAP_SYS_RESOURCE",
        "default",
        on="small",
        answers=("not allowed to raise maximum limit",),
    ),
    Row("file_size_bomb", "writes a file without end", "ulimits", "default", on="small", answers=("EFBIG",)),
    Row("shared_memory_bomb", "fills memory by /dev/shm", "shm_size, 64 MiB by default", "large", answers=("ENOSPC",)),
    Row(
        "hosts_bomb",
        "fills the host's /run by /etc/hosts",
        "a file system of 4 MiB",
        "own hosts",
        answers=("ENOSPC",),
    ),
    Row("tmpfs_bomb", "fills memory by a tmpfs", "its size", "large", on="small", answers=("ENOSPC",)),
    Row("inode_bomb", "fills memory by empty files", "the inodes of a tmpfs", "large", on="small", answers=("ENOSPC",)),
    # what is told to a container
    Row(
        "host_environment",
        "reads the agent's environment in its own",
        "an environment of its own",
        "told",
        answers=("no secret there",),
    ),
    Row(
        "leaked_descriptors",
        "finds descriptors that the runtime left open",
        "descriptors closed on exec",
        "chroot",
        answers=("none",),
    ),
    Row(
        "chroot_and_back",
        "leaves its root as chroot(2) allows it",
        "mount namespace, pivot_root",
        "chroot",
        answers=("no such file",),
    ),
)
_SPOOFING = "tests/kernel/test_spoofing.py::test_lies_reach_nobody"
_CLOSED = "tests/kernel/test_nodes_closed.py"
_FRAMES = "a table of the bridge family sees each frame"
REFERENCES = (
    Reference("frame_foreign_mac", "sends with another MAC", _FRAMES, '`anti_spoofing: "false"`', _SPOOFING),
    Reference("frame_foreign_ipv4", "sends with another IPv4 address", _FRAMES, '`anti_spoofing: "false"`', _SPOOFING),
    Reference("frame_foreign_ipv6", "sends with another IPv6 address", _FRAMES, '`anti_spoofing: "false"`', _SPOOFING),
    Reference("frame_foreign_arp", "says by ARP that it is the gateway", _FRAMES, '`anti_spoofing: "false"`', _SPOOFING),
    Reference(
        "frame_foreign_nd", "says by neighbour discovery that it is the gateway", _FRAMES, '`anti_spoofing: "false"`', _SPOOFING
    ),
    Reference("frame_router_advertisement", "says that it is a router", _FRAMES, '`anti_spoofing: "false"`', _SPOOFING),
    Reference("frame_vlan", "hides a packet behind a VLAN tag", _FRAMES, '`anti_spoofing: "false"`', _SPOOFING),
    Reference(
        "frame_lldp",
        "teaches the bridge a MAC by a frame that no hook sees",
        "`no_linklocal_learn`",
        "the flag is off",
        _SPOOFING,
    ),
    Reference(
        "vxlan_forged",
        "sends VXLAN packets to a node, for an overlay that is not its own",
        "nftables, on both nodes",
        "a rule that accepts",
        f"{_CLOSED}::test_forged_vxlan_packets_reach_nobody",
    ),
    Reference(
        "node_services",
        "connects to sshd, agents and servers of all nodes, at all their addresses",
        "nftables",
        "a rule that accepts",
        f"{_CLOSED}::test_no_service_of_any_node_is_reached_at_any_address",
    ),
    Reference(
        "node_new_address",
        "connects to an address that a node has only now",
        "nodes tell their addresses at once",
        "a rule that accepts",
        f"{_CLOSED}::test_a_nodes_new_address_is_closed_too",
    ),
)
