"""Confines a worker before it touches foreign files: an empty root, namespaces, few capabilities, seccomp, Landlock, limits.

Afterwards the worker can use only the descriptors that it was given. Its root is an empty, read-only directory; the tree that
it works on is a mount of its own, cloned from the host's and in no namespace, without devices, programs or set-user-ID. So even
an attacker's code, run in there, reaches nothing but this tree: no other file, process, network or device.

Source: open_tree(2), mount_setattr(2), pivot_root(2), user_namespaces(7), capabilities(7), seccomp(2), landlock(7).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import resource
import select
import signal
import struct
from collections.abc import Callable, Sequence

from netplugins.linux.syscalls import check, libc, mount
from netplugins.linux.uapi import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    LINUX_CAPABILITY_VERSION_3,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    OPEN_TREE_CLONE,
    PR_CAPBSET_DROP,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SYS_LANDLOCK_ADD_RULE,
    SYS_LANDLOCK_CREATE_RULESET,
    SYS_LANDLOCK_RESTRICT_SELF,
    SYS_MOUNT_SETATTR,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
)

_LAST_CAPABILITY = 40
IDS = 1 << 16
"""How many owners a container in a user namespace has."""
ERRNO_EPERM = SECCOMP_RET_ERRNO | errno.EPERM

CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "DAC_READ_SEARCH": 2,
    "FOWNER": 3,
    "FSETID": 4,
    "MKNOD": 27,
    "SETFCAP": 31,
    "SYS_ADMIN": 21,
}
OWNERS = ("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "SETFCAP")
"""The capabilities to write files with owners, modes and capabilities of others."""
READER = ("DAC_OVERRIDE", "DAC_READ_SEARCH")
"""The capabilities to read all files of a tree."""

_RUNNING = (
    "read readv pread64 write writev pwrite64 close fstat newfstatat fstatfs statx lseek brk mmap munmap mremap mprotect "
    "madvise rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack getpid gettid getuid geteuid getgid getegid exit exit_group "
    "futex getrandom clock_gettime clock_nanosleep gettimeofday poll ppoll fcntl dup restart_syscall rseq sched_yield "
    "prlimit64 getrlimit"
).split()
"""The system calls of a running interpreter."""
_LOOKING = (
    "openat openat2 getdents64 readlinkat faccessat faccessat2 getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr "
    "fchdir"
).split()
_CHANGING = (
    "mkdirat mknodat unlinkat renameat renameat2 linkat symlinkat fchown fchownat fchmod fchmodat fchmodat2 utimensat setxattr "
    "lsetxattr fsetxattr lremovexattr ftruncate fallocate fsync fdatasync copy_file_range umask"
).split()
WRITE_CALLS = (*_RUNNING, *_LOOKING, *_CHANGING)
READ_CALLS = (*_RUNNING, *_LOOKING)
POWERS = tuple(
    "mount umount2 move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr pivot_root chroot setns unshare ptrace "
    "process_vm_readv process_vm_writev bpf keyctl add_key request_key kexec_load kexec_file_load init_module finit_module "
    "delete_module reboot swapon swapoff sethostname setdomainname perf_event_open userfaultfd io_uring_setup "
    "open_by_handle_at acct quotactl quotactl_fd syslog iopl ioperm settimeofday clock_settime adjtimex".split()
)
"""System calls that use root's rights for other things than files."""


def clone_tree(fd: int, *, read_only: bool, nested: bool, programs: bool = False, devices: bool = False) -> int:
    """A mount of the file or directory *fd* that is in no namespace, for this process alone. Without *devices* none can be
    opened there, without *programs* none be run; *nested* takes what is mounted below along.
    Raises OSError: EPERM or ENOSYS where it cannot be had."""
    flags = AT_EMPTY_PATH | OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if nested else 0)
    tree = check(libc.syscall(SYS_OPEN_TREE, fd, b"", flags), "open_tree")
    attributes = MOUNT_ATTR_NOSUID | (0 if devices else MOUNT_ATTR_NODEV) | (0 if programs else MOUNT_ATTR_NOEXEC)
    attributes |= MOUNT_ATTR_RDONLY if read_only else 0
    how = struct.pack("=QQQQ", attributes, 0, 0, 0)
    try:
        check(
            libc.syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH | (AT_RECURSIVE if nested else 0), how, len(how)),
            "mount_setattr",
        )
    except OSError:
        os.close(tree)
        raise
    return tree


def confined(work: Callable[[int], int], *, first_id: int, user: bool) -> int:
    """Run *work* in a child that has namespaces of its own, and return its exit status. *first_id* is the host's ID that is 0
    in there, with 65,536 IDs from it on; 0 keeps all IDs as they are. Without *user*, or
    if no user namespace can be made, it stays in this one.

    The child is the first process of its PID namespace. *work* is given the descriptor for `die_with_parent`, which it is to
    call."""
    flags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    start, started = os.pipe2(os.O_CLOEXEC)
    pid = -1
    if user:
        pid = _clone(flags | CLONE_NEWUSER)
    if pid < 0:
        if first_id:
            raise OSError(ctypes.get_errno(), "a user namespace for the owners of the container cannot be had")
        user = False
        pid = check(_clone(flags), "clone")
    if pid == 0:
        os.close(started)
        if os.read(start, 1) != b"+":
            os._exit(70)  # the parent is gone
        try:
            if first_id:  # until now it has the user and all rights of its parent
                become(0)
            os._exit(work(start))
        finally:
            os._exit(70)
    os.close(start)
    if user:
        _map_ids(pid, first_id)
    os.write(started, b"+")
    while True:
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return os.waitstatus_to_exitcode(status)


def _clone(flags: int) -> int:
    """fork(2) with new namespaces; this process has one thread, and the child execs nothing. -1 with errno where refused."""
    numbers = {"x86_64": 56, "aarch64": 220}
    number = numbers[os.uname().machine]
    return int(libc.syscall(number, flags | signal.SIGCHLD, 0, 0, 0, 0))


def _map_ids(pid: int, first_id: int) -> None:
    for kind in ("uid", "gid"):
        if first_id:
            text = f"0 {first_id} {IDS}\n"
        else:  # all IDs of this process, each mapped to itself
            with open(f"/proc/self/{kind}_map") as own:
                rows = [line.split() for line in own]
            text = "".join(f"{inside} {inside} {count}\n" for inside, _, count in rows)
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write(text)


def enter_empty_root(size: str = "4k", files: int = 16) -> None:
    """From now on "/" is an empty directory, with room for *size* and so many *files*, and the host's files are out of reach by
    any path."""
    mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    mount(b"tmpfs", b"/tmp", b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, _options(size, files))
    os.chdir("/tmp")
    _pivot()


def _options(size: str, files: int) -> bytes:
    return f"mode=0555,size={size},nr_inodes={files}".encode()


def _pivot() -> None:
    """The working directory, a mount, becomes the root; the old one goes. Source: pivot_root(2), NOTES."""
    numbers = {"x86_64": 155, "aarch64": 41}
    check(libc.syscall(numbers[os.uname().machine], b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def attach(tree: int, name: str, *, directory: bool = True) -> None:
    """Mount the cloned *tree* at /*name* of the root that `enter_empty_root` has made."""
    if directory:
        os.mkdir(f"/{name}", 0o555)
    else:
        os.close(os.open(f"/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    check(
        libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, f"/{name}".encode(), MOVE_MOUNT_F_EMPTY_PATH),
        "move_mount",
    )


def seal_root(size: str = "4k", files: int = 16) -> None:
    """Nothing more can be made in the empty root."""
    mount(
        b"none",
        b"/",
        None,
        MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
        _options(size, files),
    )


def limit(*, memory: int, cpu_s: int, file_bytes: int) -> None:
    """Bounds of this process: bytes of address space, seconds of CPU, bytes of one file; no core dumps."""
    bounds = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in bounds.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def become(user: int) -> None:
    """Be the user and group *user*, in no other group; root's capabilities go with that."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def leave_namespaces(*, network: bool = False) -> None:
    """Mounts, IPC, host name and, but with *network*, the network of this process are its own from now on.
    Source: unshare(2)."""
    own_network = 0 if network else CLONE_NEWNET
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | own_network), "unshare")


def drop_capabilities(keep: Sequence[str]) -> None:
    """Keep the capabilities *keep* and no way to others."""
    numbers = {CAPABILITIES[name] for name in keep}
    for number in range(_LAST_CAPABILITY + 1):
        if number not in numbers:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # EINVAL above the kernel's last, EPERM without SETPCAP
    low = sum(1 << n for n in numbers if n < 32)
    high = sum(1 << (n - 32) for n in numbers if n >= 32)
    head = struct.pack("=II", LINUX_CAPABILITY_VERSION_3, 0)
    check(libc.capset(head, struct.pack("=6I", low, low, 0, high, high, 0)), "capset")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def restrict_files(trees: Sequence[int]) -> None:
    """Landlock: allow only files below the directories *trees*. Nothing happens if the kernel lacks Landlock."""
    version = int(libc.syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, 1))
    if version < 1:
        return
    rights = (1 << 13) - 1  # ABI 1: everything but links and renames between directories
    rights |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    attributes = struct.pack("=Q", rights)
    rules = check(libc.syscall(SYS_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0), "landlock_create_ruleset")
    allowed = rights & ~1  # no execution
    try:
        for fd in trees:
            beneath = struct.pack("=Qi", allowed, fd)
            check(libc.syscall(SYS_LANDLOCK_ADD_RULE, rules, 1, beneath, 0), "landlock_add_rule")
        check(libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    finally:
        os.close(rules)


@functools.cache
def load_seccomp() -> ctypes.CDLL | None:
    """libseccomp, which runc and crun need too; None if it is not installed. Call it while files can be opened."""
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    return library


def allow_calls(library: ctypes.CDLL | None, names: Sequence[str]) -> None:
    """Of all system calls only *names*; others fail with EPERM. Raises OSError if the kernel refuses the filter."""
    _filter(library, names, SECCOMP_RET_ALLOW, otherwise=ERRNO_EPERM)


def refuse_calls(library: ctypes.CDLL | None, names: Sequence[str]) -> None:
    """Make the system calls *names* fail with EPERM, for programs whose calls we cannot list. Raises OSError likewise."""
    _filter(library, names, ERRNO_EPERM, otherwise=SECCOMP_RET_ALLOW)


def _filter(library: ctypes.CDLL | None, names: Sequence[str], action: int, *, otherwise: int) -> None:
    if library is None:
        return
    context = library.seccomp_init(otherwise)
    try:
        for name in names:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != -1:  # a call that this library or architecture does not know cannot be made either
                library.seccomp_rule_add(context, action, number, 0)
        if code := library.seccomp_load(context):
            raise OSError(-code, f"seccomp: {os.strerror(-code)}")
    finally:
        library.seccomp_release(context)


def die_with_parent(parent: int = -1) -> None:
    """SIGKILL for this process when the one that started it ends. Credentials must not change afterwards.

    *parent* is a pipe whose other end only that one holds: if it has ended already, so does this process."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PDEATHSIG")
    if parent >= 0 and select.select([parent], [], [], 0)[0]:
        os._exit(70)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
