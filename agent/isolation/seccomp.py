"""The default seccomp profile: what is not allowed fails with EPERM.

A table of info from Docker's documentation of its default profile, kept as groups of system calls with the capability
that opens them. Source: seccomp(2); Docker "Seccomp security profiles".
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from errno import ENOSYS
from pathlib import Path

from agent.errors import BadRequestError
from agent.isolation import observation, seccomp_profile
from netplugins.linux.uapi import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

ALLOWED = """
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr
getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents
io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule
landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier
memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr
mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal
msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open
openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev
pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
removexattr removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat
shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat
stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask
uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
writev arch_prctl modify_ldt ptrace process_vm_readv process_vm_writev
""".split()

WITH_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr "
    "move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 "
    "unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}
NEW_NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
STRICT_WITHOUT = frozenset(
    """
    adjtimex clock_adjtime clock_adjtime64 fanotify_mark io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64
    io_setup io_submit ioprio_set ipc listmount map_shadow_stack memfd_secret mknod mknodat mlock2 modify_ldt mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv
    msgsnd name_to_handle_at pidfd_send_signal process_mrelease process_vm_readv process_vm_writev ptrace readahead
    remap_file_pages riscv_hwprobe sched_setattr sched_setparam sched_setscheduler statmount swapcontext sync_file_range
    uretprobe vmsplice epoll_ctl_old epoll_wait_old
    """.split()
)
"""What the profile `strict` has not of Docker's: other processes' memory, old asynchronous I/O, message queues, device nodes,
handles of files, clocks. A service that needs one names it in a profile of its own."""


def _rule(names: Sequence[str], action: str = "SCMP_ACT_ALLOW", **extra: object) -> dict[str, object]:
    return {"names": list(names), "action": action, **extra}


def default(capabilities: Sequence[str], *, strict: bool = False) -> dict[str, object]:
    """`linux.seccomp` of the OCI runtime specification for a container with *capabilities* (CAP_ names); *strict* allows
    less."""
    rules = [_rule([call for call in ALLOWED if not (strict and call in STRICT_WITHOUT)])]
    # AF_VSOCK (40) reaches the hypervisor, AF_ALG (38) has a history of holes
    ranges = [("SCMP_CMP_LT", 38), ("SCMP_CMP_EQ", 39), ("SCMP_CMP_GT", 40)]
    rules += [_rule(["socket"], args=[{"index": 0, "value": v, "op": op}]) for op, v in ranges]
    for persona in (0x0, 0xFFFFFFFF) if strict else (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF):
        rules.append(_rule(["personality"], args=[{"index": 0, "value": persona, "op": "SCMP_CMP_EQ"}]))
    for capability, names in WITH_CAPABILITY.items():
        if capability in capabilities:
            rules.append(_rule(names.split()))
    if "CAP_SYS_ADMIN" not in capabilities:
        masked = {"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append(_rule(["clone"], args=[masked]))
        # glibc falls back to clone, whose flags can be seen here; clone3's lie behind a pointer
        rules.append(_rule(["clone3"], "SCMP_ACT_ERRNO", errnoRet=ENOSYS))
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ARCHITECTURES.get(platform.machine(), []),
        "syscalls": rules,
    }


def resolve(security_opt: Sequence[str], capabilities: Sequence[str], *, privileged: bool) -> dict[str, object] | None:
    """The profile that `security_opt: [seccomp:…]` asks for: unconfined (None), builtin, strict, observe, a profile in Docker's
    JSON, or a file of the node with one. Raises BadRequestError."""
    for option in security_opt:
        key, _, value = option.replace("=", ":", 1).partition(":")
        if key == "seccomp":
            if value == "unconfined":
                return None
            if value == observation.WORD:
                return observation.reporting(default(capabilities))
            if value in ("builtin", "strict"):
                return default(capabilities, strict=value == "strict")
            if value.startswith("{"):  # Docker's command and the stack file send the profile itself
                return seccomp_profile.resolve(seccomp_profile.parse(value, "(sent)"), capabilities)
            try:
                with Path(value).open("rb") as file:
                    text = file.read(seccomp_profile.MOST_BYTES + 1)
            except (OSError, ValueError) as error:
                raise BadRequestError(f"security_opt seccomp: profile {value}: {error}") from error
            return seccomp_profile.resolve(seccomp_profile.parse(text, value), capabilities)
    return None if privileged else default(capabilities)
