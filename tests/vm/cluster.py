"""A cluster of three real virtual machines, from nothing: `make test-vm`.

The machines are Debian with systemd, cgroup version 2 and its stock kernel, made from packages and emulated by QEMU, on a
bridge in a network namespace of their own. One has pystack and leads; the two others have what the README asks of a node,
and get the agent over SSH. What is tried and how long it took goes to build/vm/cluster.json.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
BUILD = ROOT / "build" / "vm"
NET, HOST = "10.77.0", 254
MACHINES = ("vm1", "vm2", "vm3")
PATIENCE = float(os.environ.get("PYSTACK_VM_PATIENCE", "300"))
STACK = """
services:
  web:
    image: busybox
    command: [sh, -c, "mkdir -p /www && hostname > /www/index.html && exec httpd -f -p 80 -h /www"]
    hostname: "web"
    stop_signal: SIGKILL
    restart: always
    mem_limit: 64m
    pids_limit: 50
    deploy: {mode: global}
    ports: ["8080:80"]
  near:
    image: busybox
    command: [sh, -c, "trap 'echo bye >> /data/said; exit 0' TERM; while :; do sleep 0.2; done"]
    restart: always
    volumes: [data:/data]
    deploy: {placement: {constraints: [node.hostname == vm3]}}
volumes: {data: {}}
"""
LAN = """
services:
  seen:
    image: busybox
    command: [httpd, -f, -p, "80", -h, /]
    stop_signal: SIGKILL
    networks: {lan: {ipv4_address: 10.77.0.%d}}
    deploy: {placement: {constraints: [node.hostname == %s]}}
networks:
  lan:
    driver: %s
    driver_opts: {parent: eth0}
    ipam: {config: [{subnet: 10.77.0.0/24, ip_range: 10.77.0.128/26, gateway: 10.77.0.254}]}
"""


class Machine:
    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.number = number
        self.address = f"{NET}.{number}"
        self.disk = BUILD / f"{name}.disk"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        accel = os.environ.get("PYSTACK_VM_ACCEL", "tcg,thread=multi")
        self.process = subprocess.Popen(
            [
                "qemu-system-x86_64",
                "-accel",
                accel,
                "-cpu",
                "max",
                "-smp",
                "1",
                "-m",
                "1536",
                "-display",
                "none",
                "-monitor",
                "none",
                "-kernel",
                BUILD / "kernel",
                "-initrd",
                BUILD / "initrd",
                "-append",
                "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet systemd.show_status=0",
                "-serial",
                f"file:{BUILD / self.name}.log",
                "-drive",
                f"file={self.disk},format=raw,if=virtio,cache=unsafe",
                "-netdev",
                f"tap,id=n,ifname=tap{self.number},script=no,downscript=no",
                "-device",
                f"virtio-net-pci,netdev=n,mac=02:77:00:00:00:{self.number:02x}",
            ],
            stdin=subprocess.DEVNULL,
        )

    def cut(self) -> None:
        """Pull the plug."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def run(self, command: str, *, check: bool = True, stdin: str = "", within_s: float = 180) -> str:
        done = subprocess.run(
            [
                "ssh",
                "-F",
                "none",
                "-i",
                self.folder / "key",
                "-o",
                f"UserKnownHostsFile={self.folder / 'known'}",
                "-o",
                "ConnectTimeout=10",
                "-o",
                "BatchMode=yes",
                "-o",
                "LogLevel=ERROR",
                f"root@{self.address}",
                command,
            ],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


def until(check: Callable[[], object], what: str, within_s: float = PATIENCE) -> float:
    """Seconds until *check* holds."""
    began = time.monotonic()
    last: Exception | None = None
    while time.monotonic() - began < within_s:
        try:
            check()
            return time.monotonic() - began
        except (AssertionError, subprocess.SubprocessError, ValueError, KeyError, IndexError) as error:
            last = error
            time.sleep(0.5)
    raise AssertionError(f"{what}: not within {within_s:.0f} s: {last}")


def prepare(folder: Path) -> list[Machine]:
    """Disks of three machines that know each other's SSH keys; the first one has pystack."""
    subprocess.run(["bash", ROOT / "tests" / "vm" / "base"], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    machines = [Machine(name, number, folder) for number, name in enumerate(MACHINES, 1)]
    for machine in machines:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / machine.name], check=True)
    known = "".join(f"{m.address} {(folder / f'{m.name}.pub').read_text()}" for m in machines)
    (folder / "known").write_text(known)
    for machine in machines:
        root = folder / "root"
        root.mkdir()
        subprocess.run(["tar", "-C", root, "-xf", BUILD / "base.tar"], check=True)
        (root / "etc/hostname").write_text(f"{machine.name}\n")
        (root / "etc/systemd/network/lan.network").write_text(
            f"[Match]\nName=eth0\n[Network]\nAddress={machine.address}/24\nGateway={NET}.{HOST}\n"
        )
        wanted = root / "etc/systemd/system/multi-user.target.wants"
        wanted.mkdir(exist_ok=True)
        (wanted / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
        for old in (root / "etc/ssh").glob("ssh_host_*"):
            old.unlink()
        for suffix, source in (("", machine.name), (".pub", f"{machine.name}.pub")):
            shutil.copy(folder / source, root / f"etc/ssh/ssh_host_ed25519_key{suffix}")
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(folder / "key.pub", root / "root/.ssh/authorized_keys")
        if machine is machines[0]:
            _with_pystack(root, folder, known)
        shutil.copy(next((root / "boot").glob("vmlinuz-*")), BUILD / "kernel")
        shutil.copy(next((root / "boot").glob("initrd.img-*")), BUILD / "initrd")
        machine.disk.unlink(missing_ok=True)
        with machine.disk.open("wb") as disk:
            disk.truncate(3 << 30)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, machine.disk], check=True)
        shutil.rmtree(root)
    return machines


def _with_pystack(root: Path, folder: Path, known: str) -> None:
    shutil.copy(folder / "key", root / "root/.ssh/id_ed25519")
    (root / "root/.ssh/known_hosts").write_text(known)
    beside = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*cache")
    shutil.copytree(ROOT, root / "srv/pystack", ignore=beside)
    site = ROOT / ".venv/lib/python3.11/site-packages"
    shutil.copytree(site, root / "srv/site", ignore=shutil.ignore_patterns("__pycache__", "*pystack_orchestrator*", "ortools*"))
    (root / "usr/lib/python3/dist-packages/pystack.pth").write_text("/srv/pystack\n/srv/site\n")
    program = root / "usr/local/bin/pystack"
    program.write_text("#!/usr/bin/python3\nfrom orchestrator.__main__ import main\nmain()\n")
    program.chmod(0o755)
    for unit, target in (("pystack.service", "multi-user"), ("pystack.socket", "sockets")):
        shutil.copy(ROOT / "packaging/systemd" / unit, root / "etc/systemd/system" / unit)
        wanted = root / f"etc/systemd/system/{target}.target.wants" / unit
        wanted.parent.mkdir(exist_ok=True)
        wanted.symlink_to(f"/etc/systemd/system/{unit}")
    with (root / "etc/group").open("a") as groups:
        groups.write("pystack:x:990:\n")
    sys.path.insert(0, str(ROOT))
    from tests.images import archive, busybox_rootfs

    archive(root / "root/busybox.tar", [busybox_rootfs()], name="docker.io/library/busybox:latest")


def wire(machines: list[Machine]) -> None:
    """A bridge with a port for each machine, and this process's own address on it."""
    lines = ["link add br0 type bridge", f"addr add {NET}.{HOST}/24 dev br0", "link set br0 up", "link set lo up"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    for machine in machines:
        tap = f"tap{machine.number}"
        subprocess.run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"], check=True)
        subprocess.run(["ip", "link", "set", tap, "master", "br0", "up"], check=True)


def fetch(url: str) -> str:
    done = subprocess.run(["curl", "-sS", "-m", "10", url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def tried(machines: list[Machine]) -> dict[str, float | str]:
    """What is done and seen, with the seconds that it took."""
    first, second, third = machines
    out: dict[str, float | str] = {}
    began = time.monotonic()

    def took(what: str, since: float | None = None) -> None:
        out[what] = round(time.monotonic() - (since or began), 1)
        print(f"{what}: {out[what]} s", flush=True)

    for machine in machines:
        machine.boot()
    for machine in machines:
        until(lambda machine=machine: machine.run("true"), f"{machine.name} boots")  # type: ignore[misc]
    took("three machines booted (emulated)")
    info = first.run("uname -r; stat -fc %T /sys/fs/cgroup; systemctl is-system-running || true").split()
    out["kernel, cgroup"] = " ".join(info[:2])
    assert info[1] == "cgroup2fs"
    until(lambda: first.run("pystack node ls"), "the server answers")
    since = time.monotonic()
    first.run(f"pystack node add root@{second.address} root@{third.address} --label zone=b", within_s=PATIENCE)
    took("two nodes added over SSH", since)
    for node in (second, third):
        assert node.run("systemctl is-active pystack-agent").strip() == "active"
    first.run("pystack image load -i /root/busybox.tar")
    first.run("mkdir -p app && cat > app/stack.yml", stdin=STACK)
    since = time.monotonic()
    first.run("cd app && pystack up", within_s=PATIENCE)
    took("up of the example, images carried over", since)

    def all_answer() -> None:
        for machine in machines:
            assert fetch(f"http://{machine.address}:8080/") == "web"

    all_answer()
    took("from nothing to the example answering on each node")
    rows = json.loads(first.run("cd app && pystack ps --format json"))
    web = {r["node"]: r for r in rows if r["service"] == "web"}
    assert set(web) == set(MACHINES)
    for name in MACHINES:  # over the overlay, by name and by each address
        index = web[name]["index"]
        for other in web.values():
            address = next(iter(other["addresses"].values()))
            said = first.run(f"cd app && pystack exec -T --index {index} web wget -q -O - http://{address}/")
            assert said.strip() == "web"
        assert "near" in first.run(f"cd app && pystack exec -T --index {index} web nslookup near || true")
    out["overlay"] = "every task reaches every other, on three nodes"
    limits = first.run("cd app && pystack exec -T web cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max").split()
    assert limits == [str(64 << 20), "50"], limits
    out["limits on cgroup v2"] = "memory.max, pids.max"
    for number, (driver, name) in enumerate((("macvlan", "vm2"), ("ipvlan", "vm3")), 140):
        first.run(f"mkdir -p {driver} && cat > {driver}/stack.yml", stdin=LAN % (number, name, driver))
        first.run(f"cd {driver} && pystack up", within_s=PATIENCE)
        assert fetch(f"http://{NET}.{number}/etc/hostname")
        out[driver] = "a machine on the LAN reaches the container"
        first.run(f"cd {driver} && pystack down")
    checks = json.loads(first.run("pystack doctor --format json"))
    assert [c for c in checks if not c["ok"]] == [], checks
    out["doctor"] = f"{len(checks)} checks, no finding"

    def whole() -> None:
        assert [r["state"] for r in json.loads(first.run("pystack node ls --format json"))] == ["ready"] * 3
        now = json.loads(first.run("cd app && pystack ps --format json"))
        assert [r["state"] for r in now] == ["running"] * 4, now
        all_answer()

    since = time.monotonic()
    third.run("systemctl reboot", check=False)
    until(lambda: _down(first, "vm3"), "the reboot is seen")
    assert fetch(f"http://{first.address}:8080/") == "web"
    until(whole, "all is back after a reboot")
    took("reboot of a node until all answers again", since)
    assert first.run("cd app && pystack exec -T near cat /data/said") == "bye\n", "a reboot asks containers to end"
    since = time.monotonic()
    second.cut()
    until(lambda: _down(first, "vm2"), "the power cut is seen")
    took("power cut seen", since)
    assert fetch(f"http://{third.address}:8080/") == "web"
    second.boot()
    until(whole, "all is back after a power cut")
    took("power cut of a node until all answers again", since)
    since = time.monotonic()
    first.run("systemctl reboot", check=False)
    until(whole, "all is back after a reboot of the server")
    took("reboot of the server's machine until all answers again", since)
    first.run("cd app && pystack down -v")
    return out


def _down(first: Machine, name: str) -> None:
    rows = {r["name"]: r["state"] for r in json.loads(first.run("pystack node ls --format json"))}
    assert rows[name] != "ready"


def main() -> None:
    if "PYSTACK_VM_INSIDE" not in os.environ:
        os.environ["PYSTACK_VM_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, __file__])
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        machines = prepare(Path(folder))
        wire(machines)
        try:
            found = tried(machines)
        finally:
            for machine in machines:
                if machine.process:
                    machine.cut()
                machine.disk.unlink(missing_ok=True)
    (BUILD / "cluster.json").write_text(json.dumps(found, indent=2) + "\n")
    for what, value in found.items():
        print(f"{what}: {value}{' s' if isinstance(value, float) else ''}")


if __name__ == "__main__":
    main()
