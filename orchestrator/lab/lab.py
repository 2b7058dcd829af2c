"""A lab: machines made of namespaces on a virtual switch. The host's own network namespace is never touched.

    <labs>/<name>/lab.json      which machines there are, by the PID and start time of their first process
    <labs>/<name>/<machine>/    a machine's state folder, PYSTACK_ROOT of its server

`n1` … are nodes, the first of them has the server; `outside` is a machine on the switch that is none; `switch` only holds
the bridge.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from orchestrator import STALE
from orchestrator.errors import PystackError
from orchestrator.lab import cgroups, disk, secure

LABS = Path("/var/lib/pystack-lab")
NETWORK4, NETWORK6 = "10.99.0", "fd99::"
OUTSIDE = 254
MAX_NODES = 200
AGAIN_S = 10.0
"""In which a server or an agent that was killed runs again."""
ANSWER_S = 2.0
"""In which a server that leads says so; one that is stopped says nothing."""


class Machine(msgspec.Struct, kw_only=True):
    """*pid* and *started* name its first process in the host's PID namespace; 0 while it is crashed."""

    name: str
    role: str
    address: str
    pid: int = 0
    started: int = 0

    def alive(self) -> bool:
        return self.pid > 0 and _start_time(self.pid) == self.started


class Relay(msgspec.Struct, kw_only=True):
    pid: int
    started: int
    local: int
    target: str


class Lab(msgspec.Struct, kw_only=True):
    name: str
    machines: dict[str, Machine] = {}
    etcd: bool = False
    password: str = ""
    """Of etcd's user root, where it has users."""
    relays: list[Relay] = []
    disk_size: int = 0
    """Bytes of each node's own disk, 0 where they are on the host's."""

    @property
    def directory(self) -> Path:
        return LABS / self.name

    @property
    def servers(self) -> list[Machine]:
        return [m for m in self.machines.values() if m.role == "server"]

    def machine(self, name: str) -> Machine:
        if name not in self.machines or name == "switch":
            there = ", ".join(n for n in self.machines if n != "switch")
            raise PystackError(f"lab {self.name} has no machine {name}; there is: {there}")
        return self.machines[name]

    def save(self) -> None:
        path = self.directory / "lab.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(self))
        temporary.replace(path)

    def socket(self, node: str = "n1") -> Path:
        return self.directory / node / "run" / "pystack.sock"


def _start_time(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def names() -> list[str]:
    return sorted(p.parent.name for p in LABS.glob("*/lab.json"))


def find(name: str) -> Lab:
    path = LABS / name / "lab.json"
    if not path.exists():
        there = ", ".join(names())
        raise PystackError(f"there is no lab {name}" + (f"; there is: {there}" if there else ": `pystack lab up`"))
    return msgspec.json.decode(path.read_bytes(), type=Lab)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    LABS.mkdir(parents=True, exist_ok=True)
    lock = os.open(LABS / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        (LABS / f".{name}.lock").unlink(missing_ok=True)
        os.close(lock)


def up(
    name: str,
    nodes: int = 1,
    labels: Mapping[str, Mapping[str, str]] = {},
    *,
    servers: int = 1,
    etcd: bool = False,
    readers: bool = False,
    disk_size: int = 0,
) -> Lab:
    """Make a lab and return when its server answers and has all nodes; *labels* is node → labels. The first *servers* of
    them have a server each; with *etcd* a member of their store too, and with *readers* the nodes read it themselves. Each
    has a disk of *disk_size* bytes of its own, or, 0, is on the host's.

    Raises PystackError; nothing is left then."""
    if os.geteuid() != 0:
        raise PystackError("a lab is made of namespaces and needs root")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,20}", name):
        raise PystackError(f"lab name {name!r}: at most 21 lower case letters, digits and -")
    if not 1 <= nodes <= MAX_NODES:
        raise PystackError(f"--nodes {nodes}: a lab has 1 to {MAX_NODES} nodes")
    if unknown := labels.keys() - {f"n{i}" for i in range(1, nodes + 1)}:
        raise PystackError(f"--label {', '.join(sorted(unknown))}: there is no such node in a lab of {nodes}")
    if not 1 <= servers <= nodes or (servers > 1 and not etcd):
        raise PystackError(f"--servers {servers}: from 1 to the number of nodes, and more than one with --store etcd alone")
    if disk_size and disk_size < disk.SMALLEST:
        raise PystackError(f"--disk {disk_size}: at least {disk.SMALLEST >> 20}m")
    for program in (*(("etcd",) if etcd else ()), "ip", "nsenter", "runc", "conmon", "nft", "sshd", "ssh-keygen"):
        if not shutil.which(program):
            raise PystackError(f"{program} is not installed: run `make setup`")
    with _locked(name):
        if (LABS / name / "lab.json").exists():
            lab = find(name)
            if all(m.alive() for m in lab.machines.values()):
                _wait_for_server(lab)
                return lab
            _remove(lab)
        lab = Lab(name=name, etcd=etcd, password=os.urandom(12).hex() if readers else "", disk_size=disk_size)
        lab.directory.mkdir(parents=True, exist_ok=True)
        try:
            lab.machines["switch"] = Machine(name="switch", role="switch", address="127.0.0.1")
            lab.machines["outside"] = Machine(name="outside", role="outside", address=f"{NETWORK4}.{OUTSIDE}")
            for number in range(1, nodes + 1):
                role = "server" if number <= servers else "node"
                lab.machines[f"n{number}"] = Machine(name=f"n{number}", role=role, address=f"{NETWORK4}.{number}")
            for machine in lab.machines.values():
                _insert_disk(lab, machine)  # before anything is written to the folder that it covers
            secure.prepare(
                lab.directory,
                {m.name: m.address for m in lab.machines.values() if m.role != "switch"},
                [m.name for m in lab.servers],
            )
            for machine in lab.machines.values():
                _boot(lab, machine)
            _wait_for_server(lab)
            if readers:
                _give_users(lab)
            _join(lab, labels)
            return lab
        except BaseException:
            _remove(lab)
            raise


def _insert_disk(lab: Lab, machine: Machine) -> None:
    """Give the machine its own disk, where the lab's nodes have some."""
    if lab.disk_size and machine.role in ("server", "node"):
        directory = lab.directory / machine.name
        directory.mkdir(exist_ok=True)
        disk.insert(lab.directory / f"{machine.name}.disk", lab.disk_size, directory)


def _boot(lab: Lab, machine: Machine) -> None:
    directory = lab.directory / machine.name
    directory.mkdir(exist_ok=True)
    _insert_disk(lab, machine)
    (directory / "wired").unlink(missing_ok=True)
    _fresh_run(directory / "run")
    cgroups.create(lab.name, machine.name)
    spec = directory / "machine.json"
    spec.write_text(
        json.dumps(
            {
                "lab": lab.name,
                "name": machine.name,
                "role": machine.role,
                "directory": str(directory),
                "address": machine.address,
                "nameserver": f"{NETWORK4}.{OUTSIDE}",
                "members": {m.name: m.address for m in lab.servers} if lab.etcd else {},
                "password": lab.password,
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-E", "-s", "-m", "orchestrator.lab.machine", str(spec)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    answer: dict[str, object] = json.loads(done.stdout) if done.stdout else {"error": done.stderr.strip().splitlines()[-1:]}
    if "error" in answer:
        raise PystackError(f"machine {machine.name} of lab {lab.name} did not start: {answer['error']}")
    machine.pid = int(str(answer["pid"]))
    machine.started = _start_time(machine.pid)
    lab.save()
    _wire(lab, machine)
    (directory / "wired").touch()


def _fresh_run(run: Path) -> None:
    """An empty tmpfs, as /run is on a machine that has just been switched on."""
    disk.unmount(run)
    run.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(run)], check=True)


def _ip(pid: int, script: str) -> None:
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"], input=script, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PystackError(f"the lab's network cannot be made: {done.stderr.strip()}")


def _wire(lab: Lab, machine: Machine) -> None:
    """Plug the machine into the switch; both ends are made inside the lab's namespaces."""
    switch = lab.machines["switch"]
    if machine is switch:
        _ip(switch.pid, "link add sw0 type bridge\nlink set sw0 up\n")
        return
    number = machine.address.rsplit(".", 1)[1]
    port = f"p-{machine.name}"
    # a machine that comes back has the network card that it had: its neighbours remember the address
    mac = f"02:99:00:00:{int(number) >> 8:02x}:{int(number) & 255:02x}"
    # the kernel takes the links of a machine that ended away in its own time
    subprocess.run(["nsenter", "-t", str(switch.pid), "-n", "ip", "link", "del", port], capture_output=True, check=False)
    _ip(
        switch.pid,
        f"link add {port} type veth peer name eth0 address {mac} netns {machine.pid}\nlink set {port} master sw0 up\n",
    )
    _ip(
        machine.pid,
        f"addr add {machine.address}/24 dev eth0\naddr add {NETWORK6}{int(number):x}/64 dev eth0 nodad\nlink set eth0 up\n",
    )
    if machine.role in ("node", "server"):
        _ip(machine.pid, f"route add default via {NETWORK4}.{OUTSIDE}\n")


def leader(lab: Lab) -> Machine | None:
    """The machine whose server leads; None while none does. One that answers from memory, as its store is away, does not."""
    for machine in lab.servers:
        with contextlib.suppress(OSError, http.client.HTTPException, PystackError):
            if STALE not in _ask(lab, machine, "GET", "/v1/version", None, timeout_s=ANSWER_S):
                return machine
    return None


def _wait_for_server(lab: Lab) -> Machine:
    """The machine whose server leads, once one does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := leader(lab):
            return found
        time.sleep(0.01)
        if not lab.machines["n1"].alive():
            break
    log = lab.directory / "n1" / "server.log"
    tail = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
    raise PystackError("the lab's server does not answer: " + ("; ".join(tail) or "it said nothing"))


def _give_users(lab: Lab) -> None:
    """From now on etcd asks who is there; the servers have the password."""
    words = ["etcdctl", "--endpoints", f"http://{lab.servers[0].address}:2379"]
    for command in (["user", "add", f"root:{lab.password}"], ["user", "grant-role", "root", "root"], ["auth", "enable"]):
        done = subprocess.run(
            [*enter(lab, lab.servers[0].name), *words, *command],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
        if done.returncode:
            raise PystackError(f"etcd's users cannot be made: {done.stderr.strip()}")


def _join(lab: Lab, labels: Mapping[str, Mapping[str, str]]) -> None:
    """Make the machines nodes of the cluster, over SSH, side by side, as `node add` does."""
    from concurrent.futures import ThreadPoolExecutor

    leader = _wait_for_server(lab)

    def join(machine: Machine) -> None:
        wanted = sorted(labels.get(machine.name, {}).items())
        if machine is leader:
            if wanted:
                _ask(lab, leader, "PATCH", f"/v1/nodes/{machine.name}", {"labels": wanted})
        else:
            _listening(lab, machine)
            requested = {
                "target": f"root@{machine.address}",
                "name": machine.name,
                "labels": wanted,
                "transport": "etcd" if lab.password else "ssh",
            }
            _ask(lab, leader, "POST", "/v1/nodes", requested)

    machines = [m for m in lab.machines.values() if m.role in ("node", "server")]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(join, machines))


def _listening(lab: Lab, machine: Machine) -> None:
    """Wait until the machine's agent answers: its sshd came up long before."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                return probe.connect(str(lab.directory / machine.name / "run" / "docker.sock"))
            except OSError:
                time.sleep(0.01)
    raise PystackError(f"the agent of {machine.name} does not come up: see {lab.directory / machine.name / 'agent.log'}")


def _ask(lab: Lab, server: Machine, method: str, path: str, body: object, timeout_s: float = 60) -> http.client.HTTPMessage:
    """The headers of the server's answer. Raises PystackError with its message where it refuses."""
    connection = http.client.HTTPConnection("pystack", timeout=timeout_s)
    connection.sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        connection.sock.settimeout(timeout_s)
        connection.sock.connect(str(lab.socket(server.name)))
        connection.request(method, path, body=json.dumps(body))
        reply = connection.getresponse()
        raw = reply.read()
    if reply.status >= 400:
        raise PystackError(str(json.loads(raw).get("message")))
    return reply.headers


def down(name: str) -> None:
    """Take a lab away with all that is in it."""
    with _locked(name):
        _remove(find(name))


def _remove(lab: Lab) -> None:
    for relay in lab.relays:
        if _start_time(relay.pid) == relay.started:
            os.kill(relay.pid, signal.SIGKILL)
    for machine in reversed(list(lab.machines.values())):
        _kill(lab, machine)
        disk.unmount(lab.directory / machine.name / "run")
        disk.unmount(lab.directory / machine.name)
    cgroups.remove(lab.name)
    shutil.rmtree(lab.directory, ignore_errors=True)
    if LABS.exists() and not any(p for p in LABS.iterdir() if not p.name.endswith(".lock")):
        for path in LABS.iterdir():
            path.unlink(missing_ok=True)
        LABS.rmdir()


def _kill(lab: Lab, machine: Machine) -> None:
    """End a machine's first process, and with it, by the kernel, all of its others."""
    if machine.alive():
        fd = os.pidfd_open(machine.pid)
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            cgroups.thaw(lab.name, machine.name)
            import select

            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(10_000)
        finally:
            os.close(fd)
    machine.pid = 0


def enter(lab: Lab, machine: str) -> list[str]:
    """The words to put before a command so that it runs on *machine*."""
    found = lab.machine(machine)
    if not found.alive():
        raise PystackError(f"machine {machine} is down: `pystack lab fault boot {machine}`")
    return ["nsenter", "-t", str(found.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"]


def forward(lab: Lab, node: str, port: int, local: int) -> int:
    """Make *node*'s *port* answer on 127.0.0.1; returns the local port. Lasts until the lab goes."""
    machine = lab.machine(node)
    for relay in lab.relays:
        if relay.target == f"{node}:{port}" and local in (0, relay.local) and _start_time(relay.pid) == relay.started:
            return relay.local
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", local))
    except OSError as error:
        raise PystackError(f"port {local} on 127.0.0.1: {error.strerror}: choose another") from error
    listener.listen(128)
    process = subprocess.Popen(
        [
            "nsenter",
            "-t",
            str(machine.pid),
            "-n",
            "--",
            sys.executable,
            "-E",
            "-s",
            "-m",
            "orchestrator.lab.relay",
            str(listener.fileno()),
            machine.address,
            str(port),
        ],
        pass_fds=(listener.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    number = int(listener.getsockname()[1])
    listener.close()
    lab.relays.append(Relay(pid=process.pid, started=_start_time(process.pid), local=number, target=f"{node}:{port}"))
    lab.save()
    process.returncode = 0  # it lives on; nobody waits for it here
    return number


def _partition(lab: Lab, groups: list[list[str]]) -> None:
    """Machines of one group reach each other and nobody else: each group gets a switch of its own."""
    there = {m.name for m in lab.machines.values() if m.role != "switch"}
    script = []
    for number, group in enumerate(groups, 1):
        if unknown := set(group) - there:
            raise PystackError(f"lab {lab.name} has no machine {', '.join(sorted(unknown))}")
        script += [f"link add sw{number} type bridge", f"link set sw{number} up"]
        script += [f"link set p-{name} master sw{number}" for name in group]
    _heal(lab, sorted(there))
    _ip(lab.machines["switch"].pid, "\n".join(script) + "\n")


def _heal(lab: Lab, names: list[str]) -> None:
    switch = lab.machines["switch"].pid
    _ip(switch, "".join(f"link set p-{n} master sw0 up\n" for n in names))
    for number in range(1, len(lab.machines) if len(names) > 1 else 1):
        subprocess.run(
            ["nsenter", "-t", str(switch), "-n", "ip", "link", "del", f"sw{number}"], capture_output=True, check=False
        )


def _signal(lab: Lab, target: str, name: str, pid: str) -> int:
    """kill(1)'s exit status; *pid* is one of that machine."""
    return subprocess.run([*enter(lab, target), "kill", f"-{name}", pid], capture_output=True, check=False).returncode


def fault(lab: Lab, kind: str, target: str = "", *more: str) -> str:
    """cut, heal, partition, kill, pause, resume, crash or boot machines, or fill their disks. `heal` alone heals all. The
    target `leader` is the machine whose server leads, and to kill or pause that is to kill or pause its server. Returns the
    target's name."""
    if target == "leader":
        found = leader(lab)
        if found is None:
            raise PystackError(f"lab {lab.name}: no server leads now: name a machine, or wait until one does")
        target = found.name
        if kind in ("kill", "pause"):
            more = more or ("server",)
    _fault(lab, kind, target, *more)
    return target


def _fault(lab: Lab, kind: str, target: str, *more: str) -> None:
    what = more[0] if more else "agent"
    plugged = [m.name for m in lab.machines.values() if m.role != "switch" and m.alive()]
    if kind == "heal":
        for name in [target] if target else plugged:
            disk.free(lab.directory / name)
        return _heal(lab, [target] if target else plugged)
    machine = lab.machine(target.split(",")[0])
    if kind == "cut":
        _ip(lab.machines["switch"].pid, f"link set p-{target} down\n")
    elif kind in ("kill", "pause", "resume"):
        number = {"kill": "KILL", "pause": "STOP", "resume": "CONT"}[kind]
        if what not in ("agent", "server", "sshd"):
            raise PystackError(f"{what!r}: agent, server or sshd")
        if what in ("agent", "server"):  # the first node has both in one process
            what = {"server": "server", "node": "agent"}.get(machine.role, what)
        path = lab.directory / target / "run" / f"{what}.pid"
        if not path.exists():
            raise PystackError(f"machine {target} has no {what}")
        deadline = time.monotonic() + AGAIN_S
        while _signal(lab, target, number, path.read_text()):  # one that was killed a moment ago is started again
            if time.monotonic() > deadline:
                raise PystackError(f"machine {target}: its {what} does not run")
            time.sleep(0.02)
    elif kind == "crash":
        _kill(lab, machine)
        lab.save()
    elif kind == "boot":
        if machine.alive():
            raise PystackError(f"machine {target} is up")
        _boot(lab, machine)
        if machine.role == "server":
            _wait_for_server(lab)
    elif kind == "fill-disk":
        if more and not more[0].isdigit():
            raise PystackError(f"fill-disk {target} {more[0]}: how many bytes are to be left free, a whole number")
        disk.fill(lab.directory / target, int(more[0]) if more else 0)
    elif kind == "partition":
        _partition(lab, [part.split(",") for part in (target, *more)])
    else:
        raise PystackError(f"fault {kind!r}: cut, heal, partition, kill, pause, resume, crash, boot or fill-disk")
