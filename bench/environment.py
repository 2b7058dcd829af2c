"""Where benchmarks run: a lab, the floor and the rivals in it, on the same node, in the same minutes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from orchestrator.lab import cgroups
from orchestrator.lab import lab as labs
from tests.images import archive, busybox_rootfs

LAB = f"bench-{os.getpid()}"


class Environment:
    """One node of a lab. Every method that runs something returns the wall seconds that it took."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "PYSTACK_HOST": f"unix://{root}/run/pystack.sock"}
        self.docker_socket = root / "docker.sock"

    def pystack(self, *arguments: str) -> float:
        """Seconds that one `pystack` command takes. Raises RuntimeError if it fails."""
        return self.timed([".venv/bin/pystack", *arguments])

    def on_node(self, *command: str) -> float:
        """Seconds that *command* takes on node n1. Raises RuntimeError if it fails."""
        return self.timed([*labs.enter(labs.find(LAB), "n1"), *command])

    def docker(self, *command: str) -> float:
        """`docker` or `docker-compose` against the rival daemon of this node."""
        return self.timed(list(command), DOCKER_HOST=f"unix://{self.docker_socket}")

    def timed(self, command: list[str], **environment: str) -> float:
        """Seconds that *command* takes, with the variables *environment* set. Raises RuntimeError with its output if it
        fails."""
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment | environment, check=False)
        took = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)[:200]}: {done.returncode}\n{done.stdout}{done.stderr}")
        return took


class Namespace:
    """A network namespace on a node, named as nsenter(1) has it: commands run inside it."""

    def __init__(self, node: str, *which: str) -> None:
        self.words = [*labs.enter(labs.find(LAB), node), "nsenter", *which, "--"]

    def run(self, *command: str) -> str:
        """The output of *command*. Raises CalledProcessError if it fails, TimeoutExpired after 90 s."""
        return subprocess.run([*self.words, *command], capture_output=True, text=True, check=True, timeout=90).stdout

    def wait_for_ports(self, *ports: int, within_s: float = 30) -> None:
        """Return once somebody listens on all of these TCP ports. Raises TimeoutError. Source: proc_pid_net(5), tcp."""
        deadline = time.monotonic() + within_s
        wanted = {f":{port:04X} " for port in ports}
        while wanted:
            for line in self.run("cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines():
                if " 0A " in line:  # the state LISTEN
                    wanted -= {port for port in wanted if port in line}
            if wanted and time.monotonic() > deadline:
                raise TimeoutError(f"nobody listens on {sorted(wanted)} after {within_s} s")

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start *command* in the background; its output is discarded."""
        return subprocess.Popen([*self.words, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def environment(nodes: int = 1, disk: str = "") -> Iterator[Environment]:
    """A lab of *nodes* nodes with the image busybox on n1, each with a disk of the size *disk* where that is given; it goes at
    the end."""
    own = ["--disk", disk] if disk else []
    words = [".venv/bin/pystack", "lab", "up", "--name", LAB, "--nodes", str(nodes), *own]
    subprocess.run(words, check=True, capture_output=True)
    try:
        made = Environment(labs.LABS / LAB / "n1")
        image = made.root / "busybox.tar"
        archive(image, [busybox_rootfs()], name="docker.io/library/busybox:latest")
        made.pystack("image", "load", "-i", str(image))
        yield made
    finally:
        subprocess.run([".venv/bin/pystack", "lab", "down", "--name", LAB], check=True, capture_output=True)


@contextlib.contextmanager
def docker(environment: Environment) -> Iterator[bool]:
    """Debian's dockerd on the bench's node, with the same image; False where it is not installed."""
    if not shutil.which("dockerd") or not shutil.which("docker-compose"):
        print("dockerd and docker-compose are not installed (`apt-get install docker.io docker-compose`): no rival")
        yield False
        return
    home = environment.root / "docker"
    home.mkdir(exist_ok=True)  # it may have been here before
    command = [
        *labs.enter(labs.find(LAB), "n1"),
        "dockerd",
        "--data-root",
        str(home / "data"),
        "--exec-root",
        "/run/dockerd",
        "--pidfile",
        "/run/dockerd.pid",
        "-H",
        f"unix://{environment.docker_socket}",
    ]
    with (home / "log").open("wb") as log:
        # in the control group of the node, as pystack is: on a busy machine processors are shared out among groups first
        daemon = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=partial(cgroups.enter, LAB, "n1"))
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):
                environment.docker("docker", "info")
                break
            time.sleep(0.1)
        environment.pystack("image", "save", "-o", str(home / "image.tar"), "busybox")
        environment.docker("docker", "load", "-i", str(home / "image.tar"))
        yield True
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)


FLOOR = r"""
set -e
root=$1; layer=$2; count=$3
ip link add flr0 type bridge; ip link set flr0 up
one() {
    d=$root/f$1; mkdir -p $d/upper $d/work $d/rootfs
    mount -t overlay overlay -o lowerdir=$layer,upperdir=$d/upper,workdir=$d/work $d/rootfs
    ip netns add f$1; ip link add fv$1 type veth peer name eth0 netns f$1; ip link set fv$1 master flr0 up
    sed "s#ROOTFS#$d/rootfs#; s#NETNS#/run/netns/f$1#" $root/config.json > $d/config.json
    runc --root $root/runc run -d --bundle $d f$1 </dev/null >/dev/null 2>&1
}
export -f one; export root layer
seq $count | xargs -P 2 -I{} bash -c 'one {}'
"""
CLEAN = r"""
root=$1
for n in $(seq $2); do runc --root $root/runc delete -f f$n; umount $root/f$n/rootfs; ip netns del f$n; done
ip link del flr0; rm -rf $root
"""


def floor(environment: Environment, count: int) -> float:
    """The raw work of *count* containers in shell, two at a time: overlay, namespace, veth on a bridge, `runc run`."""
    work = environment.root / "floor"
    work.mkdir()
    (work / "config.json").write_text(json.dumps(runc_config("ROOTFS", "NETNS", ["sleep", "1000"])))
    layer = next((environment.root / "layers").iterdir())
    took = environment.on_node("bash", "-c", FLOOR, "floor", str(work), str(layer), str(count))
    environment.on_node("bash", "-c", CLEAN, "floor", str(work), str(count))
    return took


def runc_config(rootfs: str, netns: str, command: list[str]) -> dict[str, object]:
    """`runc spec`'s own defaults, with this root, network namespace and command."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["runc", "spec"], cwd=name, check=True)
        config: dict[str, object] = json.loads((Path(name) / "config.json").read_text())
    process, linux = config["process"], config["linux"]
    assert isinstance(process, dict)
    assert isinstance(linux, dict)
    process |= {"terminal": False, "args": command}
    config["root"] = {"path": rootfs, "readonly": False}
    for namespace in linux["namespaces"]:
        if namespace["type"] == "network" and netns:
            namespace["path"] = netns
    return config
