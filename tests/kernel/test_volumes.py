"""Volumes of all drivers, over three nodes where they are shared. sshfs and sshd are real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

SHARED = """
services:
  writer:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    volumes: ["data:/data"]
    deploy: {mode: global}
volumes:
  data: {driver: sshfs}
"""
ONE = """
services:
  app: {image: busybox, command: sleep 10000, stop_signal: SIGKILL, volumes: ["data:/data"]}
volumes:
  data: {%s}
"""
needs_sshfs = pytest.mark.skipif(not shutil.which("sshfs"), reason="sshfs is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Pystack]:
    with cluster_of(3) as pystack:
        yield pystack


@pytest.fixture(scope="module")
def lab(cluster: Pystack) -> Pystack:
    """Where `stack` makes its stacks."""
    return cluster


def on(stack: Stack, index: int, command: str, *, check: bool = True) -> str:
    return stack.run("exec", "-T", "--index", str(index), "writer", "sh", "-c", command, check=check).stdout


def mounted(cluster: Pystack) -> str:
    return "".join(cluster.on(node, "grep", "sshfs", "/proc/mounts", check=False) for node in ("n1", "n2", "n3"))


@pytest.mark.long
@needs_sshfs
def test_tasks_on_several_nodes_write_one_volume(stack: Stack, cluster: Pystack) -> None:
    stack.up(SHARED)
    for index in (1, 2, 3):
        on(
            stack,
            index,
            f"echo from-{index} >> /data/log; mkdir /data/d{index}; "
            f"i=0; while [ $i -lt 3400 ]; do i=$((i+1)); echo $i > /data/d{index}/$i; done; "
            f"dd if=/dev/urandom of=/data/big{index} bs=64k count=16 conv=fsync 2>/dev/null",
        )

    def seen_whole() -> None:  # a file that was closed on one node is whole on another, a second later at most
        for index in (1, 2, 3):
            assert on(stack, index, "cat /data/log").split() == ["from-1", "from-2", "from-3"]
            assert on(stack, index, "ls /data/d1 /data/d2 /data/d3 | grep -c '^[0-9]'").strip() == "10200"

    eventually(seen_whole, 3)
    assert len({on(stack, index, "cat /data/big1 /data/big2 /data/big3 | md5sum") for index in (1, 2, 3)}) == 1
    on(stack, 2, "mv /data/log /data/moved")
    eventually(lambda: _there(stack, 3, "moved"), 3)
    home = next(n for n in ("n1", "n2", "n3") if (_folder(stack, n) / "moved").exists() and not _is_mount(stack, n))
    assert "pystack:" in Path(f"/var/lib/pystack-lab/{cluster.lab}/{home}/home/.ssh/authorized_keys").read_text()
    stack.down()
    assert mounted(cluster) == ""
    assert Path(f"/var/lib/pystack-lab/{cluster.lab}/{home}/home/.ssh/authorized_keys").read_text() == ""
    assert not any(_folder(stack, n).exists() for n in ("n1", "n2", "n3"))


def _folder(stack: Stack, node: str) -> Path:
    return Path(f"/var/lib/pystack-lab/{stack.pystack.lab}/{node}/volumes/{stack.name}_data/_data")


def _is_mount(stack: Stack, node: str) -> bool:
    return str(_folder(stack, node)) in stack.pystack.on(node, "cat", "/proc/mounts")


def _there(stack: Stack, index: int, name: str) -> None:
    assert name in on(stack, index, "ls /data").split()


@needs_sshfs
def test_a_guest_sees_the_volume_and_nothing_else(stack: Stack, cluster: Pystack) -> None:
    stack.up(SHARED)
    home = next(n for n in ("n1", "n2", "n3") if not _is_mount(stack, n))
    guest = next(n for n in ("n1", "n2", "n3") if n != home)
    keys = f"/var/lib/pystack-lab/{cluster.lab}/{guest}/ssh"
    ssh = (
        f"-i {keys}/id_ed25519 -o UserKnownHostsFile={keys}/known_hosts -o HostKeyAlias={home} -o BatchMode=yes "
        "-o IdentitiesOnly=yes"
    )
    address = f"root@10.99.0.{home[1]}"
    listed = cluster.on(guest, "sh", "-c", f"echo 'ls /' | sftp -s /x {ssh} {address} 2>/dev/null")
    assert set(listed.replace("sftp> ls /", "").split()) == {"/bin", "/dev", "/etc", "/lib", "/lib64", "/usr", "/volume"}
    shell = cluster.on(guest, "sh", "-c", f"ssh {ssh} {address} touch /volume/proof </dev/null", check=False)
    assert shell == ""
    assert not (_folder(stack, home) / "proof").exists()
    forwarded = cluster(
        "lab",
        "exec",
        "--name",
        cluster.lab,
        guest,
        "--",
        "sh",
        "-c",
        f"ssh {ssh} -W {home}:22 {address} </dev/null",
        check=False,
    )
    assert forwarded.returncode != 0


AT_TWO = """
services:
  home:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    volumes: ["data:/data"]
    deploy: {placement: {constraints: [node.name == n2]}}
  writer:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    volumes: ["data:/data"]
    deploy: {placement: {constraints: [node.name == n3]}}
volumes:
  data: {driver: sshfs}
"""


@needs_sshfs
def test_a_home_that_goes_away_gives_errors_and_no_hangs(stack: Stack, cluster: Pystack) -> None:
    stack.up(AT_TWO)
    cluster.on(
        "n2",
        "sh",
        "-c",
        "nft add table inet cut; nft add chain inet cut c '{ type filter hook input priority -300; }'; "
        "nft add rule inet cut c ip saddr 10.99.0.3 drop",
    )
    try:

        def fails() -> None:
            said = stack.run("exec", "-T", "writer", "sh", "-c", "echo x > /data/x", check=False)
            assert said.returncode != 0

        eventually(fails, 40)
        rows = cluster("doctor", "--format", "json", check=False)
        assert '"check": "volume"' in rows.stdout
        stack.run("kill", "writer")

        def ended() -> None:
            assert stack.ps()["writer-1"]["state"] == "exited"

        eventually(ended, 20)
    finally:
        cluster.on("n2", "nft", "delete", "table", "inet", "cut")


def test_a_local_volume_takes_dockers_options(stack: Stack, cluster: Pystack, tmp_path: Path) -> None:
    stack.up(ONE % "driver_opts: {type: tmpfs, device: tmpfs, o: 'size=1m,mode=1777'}")
    assert "tmpfs on /data type tmpfs" in stack.exec("app", "mount")
    assert "1.0M" in stack.exec("app", "df", "-h", "/data")
    stack.down()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("mine")
    stack.up(ONE % f"driver_opts: {{type: none, device: {tmp_path}/kept, o: bind}}")
    assert stack.exec("app", "cat", "/data/file") == "mine"
    stack.down()
    assert (tmp_path / "kept" / "file").read_text() == "mine"  # it was not ours to delete
    assert str(tmp_path) not in cluster.on("n1", "cat", "/proc/mounts")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("driver: nonesuch", "there is no driver 'nonesuch'"),
        ("driver: nfs, driver_opts: {server: 10.99.0.254, pth: /x}", "the driver nfs has no such option"),
        ("driver: nfs, driver_opts: {server: 10.99.0.254}", "driver_opts.path is missing"),
        ("driver: sshfs, driver_opts: {sshcmd: 'root@10.99.0.77:/x'}", "cannot be mounted"),
        ("driver_opts: {type: none, device: /nowhere/at/all, o: bind}", "cannot be mounted"),
    ],
)
def test_a_volume_that_cannot_be_is_said(stack: Stack, body: str, said: str) -> None:
    refused = stack.up(ONE % body, check=False)
    assert refused.returncode == 1
    assert said in refused.stderr


SERVE_GLUSTER = """
mkdir -p /run/gl/state /run/gl/log /run/brick /run/gluster && mount -t tmpfs tmpfs /run/brick
mount --bind /run/gl/state /var/lib/glusterd && mount --bind /run/gl/log /var/log/glusterfs && glusterd
for i in $(seq 50); do gluster volume list >/dev/null 2>&1 && break; sleep 0.1; done
gluster --mode=script volume create gv 10.99.0.254:/run/brick/b force && gluster volume start gv
"""


def test_gluster_holds_one_volume_for_all_nodes(stack: Stack, cluster: Pystack) -> None:
    if not shutil.which("glusterd") or not shutil.which("mount.glusterfs"):
        pytest.skip("glusterfs is not installed (glusterfs-server, glusterfs-client)")
    cluster.on("outside", "sh", "-ec", SERVE_GLUSTER)
    stack.up(SHARED.replace("{driver: sshfs}", "{driver: glusterfs, driver_opts: {servers: 10.99.0.254, volume: gv}}"))
    for index in (1, 2, 3):
        on(stack, index, f"echo from-{index} >> /data/log; mount | grep '10.99.0.254:gv on /data type fuse.glusterfs'")

    def seen() -> None:  # its client keeps what it knows for a second
        assert on(stack, 1, "cat /data/log").split() == ["from-1", "from-2", "from-3"]

    eventually(seen, 5)
    stack.down()
    assert cluster.on("outside", "cat", "/run/brick/b/log").split() == ["from-1", "from-2", "from-3"]  # not ours to delete
    assert all("glusterfs" not in cluster.on(n, "cat", "/proc/mounts") for n in ("n1", "n2", "n3"))


SERVE_NFS = """
mkdir -p /run/nfs/srv && mount -t tmpfs tmpfs /run/nfs/srv && mkdir -p /run/rpc_pipefs /var/lib/nfs
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
exportfs -o rw,no_root_squash,fsid=0,insecure '*:/run/nfs/srv' && rpc.mountd && rpc.nfsd -N 3 4
"""


def test_an_nfs_server_holds_one_volume_for_all_nodes(stack: Stack, cluster: Pystack) -> None:
    if not _has_nfs():
        pytest.skip("the kernel has no NFS (CONFIG_NFS_FS, CONFIG_NFSD)")
    cluster.on("outside", "sh", "-c", SERVE_NFS)
    try:
        stack.up(SHARED.replace("{driver: sshfs}", "{driver: nfs, driver_opts: {server: 10.99.0.254, path: /, o: vers=4.2}}"))
        for index in (1, 2, 3):
            on(stack, index, f"echo from-{index} >> /data/log; mount | grep '10.99.0.254:/ on /data type nfs4'")
        assert on(stack, 1, "cat /data/log").split() == ["from-1", "from-2", "from-3"]
        stack.down()
        assert cluster.on("outside", "cat", "/run/nfs/srv/log").split() == ["from-1", "from-2", "from-3"]  # not ours to delete
    finally:
        cluster.on("outside", "sh", "-c", "rpc.nfsd 0; exportfs -ua; umount /run/nfs/srv", check=False)


def _has_nfs() -> bool:
    if not shutil.which("rpc.nfsd") or not shutil.which("mount.nfs"):
        return False
    subprocess.run(["modprobe", "-a", "nfs", "nfsd"], capture_output=True, check=False) if shutil.which("modprobe") else None
    known = Path("/proc/filesystems").read_text()
    return "nfsd" in known and "nfs4" in known


def test_nfs_that_the_kernel_has_not_is_said(stack: Stack) -> None:
    if "nfs" in Path("/proc/filesystems").read_text() or not shutil.which("mount.nfs"):
        pytest.skip("the kernel has NFS, or nfs-common is not installed")
    done = subprocess.run(["modprobe", "-n", "nfs"], capture_output=True, check=False) if shutil.which("modprobe") else None
    if done and done.returncode == 0:
        pytest.skip("the kernel can load NFS")
    refused = stack.up(ONE % "driver: nfs, driver_opts: {server: 10.99.0.254, path: /srv}", check=False)
    assert refused.returncode == 1
    assert "10.99.0.254:/srv cannot be mounted" in refused.stderr


LOGGER = """
services:
  db:
    image: busybox
    command:
      - sh
      - -c
      - i=$$(cat /data/log 2>/dev/null | wc -l); while true; do i=$$((i+1)); echo $$i >> /data/log; sleep 0.02; done
    stop_signal: SIGKILL
    volumes: ["data:/data"]
    deploy: {placement: {constraints: [node.name != n2]}}
volumes:
  data: {}
"""
TREE = """
import os, random, sys
root, dice = sys.argv[1], random.Random(3)
os.makedirs(root, exist_ok=True)
for d in range(20):
    os.makedirs(f"{root}/d{d}/deep/er", exist_ok=True)
    for f in range(100):
        path = f"{root}/d{d}/{f}"
        open(path, "wb").write(dice.randbytes(dice.randrange(3000)))
        os.chown(path, dice.randrange(70000), dice.randrange(70000))
        os.chmod(path, dice.choice([0o644, 0o600, 0o4755, 0o1777, 0o000]))
        os.utime(path, ns=(1, dice.randrange(10**18)))
os.link(f"{root}/d1/1", f"{root}/d2/hard"); os.link(f"{root}/d1/1", f"{root}/d3/deep/hard too")
os.symlink("../d1/1", f"{root}/d4/soft"); os.symlink("/nowhere", f"{root}/d4/broken")
os.mkfifo(f"{root}/pipe"); os.mknod(f"{root}/null", 0o20666, os.makedev(1, 3))
with open(f"{root}/sparse", "wb") as f:
    f.seek(1 << 28); f.write(b"end"); f.seek(1 << 20); f.write(b"x" * 5000)
os.setxattr(f"{root}/d1/1", "user.note", b"kept \\x00 whole"); os.setxattr(f"{root}/d5", "user.dir", b"1")
os.setxattr(f"{root}/d1/2", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
open(os.fsencode(root) + b"/odd \\xff\\n name", "w").write("odd")
os.utime(root + "/d6", ns=(1, 12345))
"""


def home_of(stack: Stack) -> str:
    return next(n for n in ("n1", "n2", "n3") if _folder(stack, n).exists())


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Every file with all that must be kept; hard links by the first name of their group."""
    out: dict[str, tuple[object, ...]] = {}
    groups: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        found = path.lstat()
        content: object = b""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            with path.open("rb") as file:
                content = file.read(1 << 22)
        names = sorted(os.listxattr(path, follow_symlinks=False))
        out[str(path.relative_to(root))] = (
            found.st_mode,
            found.st_uid,
            found.st_gid,
            found.st_rdev,
            content,
            found.st_mtime_ns if not path.is_symlink() else 0,
            found.st_size if path.is_file() else 0,
            groups.setdefault(found.st_ino, str(path.relative_to(root))),
            [(n, os.getxattr(path, n, follow_symlinks=False)) for n in names],
        )
    return out


def test_a_volume_moves_with_all_that_it_holds(stack: Stack, cluster: Pystack) -> None:
    stack.up(ONE % "")
    source = home_of(stack)
    target = "n3" if source != "n3" else "n2"
    subprocess.run([sys.executable, "-c", TREE, str(_folder(stack, source) / "tree")], check=True)
    before = tree(_folder(stack, source))
    assert len(before) > 2000
    cluster("volume", "move", f"{stack.name}_data", target)
    assert home_of(stack) == target
    listed = cluster.json("volume", "ls", "--format", "json")
    assert [row["node"] for row in listed if row["name"] == f"{stack.name}_data"] == [target]
    assert f"there is no volume {stack.name}_no" in cluster("volume", "rm", f"{stack.name}_no", check=False).stderr
    assert tree(_folder(stack, target)) == before
    assert (_folder(stack, target) / "tree/sparse").stat().st_blocks < 1000  # its holes are holes
    assert stack.ps()["app-1"]["node"] == target
    assert stack.exec("app", "ls", "/data/tree/d4/soft").strip() == "/data/tree/d4/soft"
    stack.run("up")
    assert stack.ps()["app-1"]["node"] == target


def test_an_old_copy_that_is_in_use_is_deleted_afterwards(stack: Stack, cluster: Pystack) -> None:
    stack.up(ONE % "")
    source = home_of(stack)
    target = "n3" if source != "n3" else "n2"
    user = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": [f"{stack.name}_data:/data"]}}
    engine = ("curl", "-s", "--unix-socket", f"/var/lib/pystack-lab/{cluster.lab}/{source}/run/docker.sock", "-X")
    made = json.loads(
        cluster.on(
            source,
            *engine,
            "POST",
            "-H",
            "Content-Type: application/json",
            "-d",
            json.dumps(user),
            "http://d/containers/create",
        )
    )
    old = _folder(stack, source)
    cluster("volume", "move", f"{stack.name}_data", target)
    assert stack.ps()["app-1"]["node"] == target
    assert old.is_dir()
    cluster.on(source, *engine, "DELETE", f"http://d/containers/{made['Id']}")

    def gone() -> None:
        assert not old.exists()

    eventually(gone, 20)
    cluster("volume", "move", f"{stack.name}_data", source)
    time.sleep(3)  # longer than it is looked for old copies
    assert home_of(stack) == source
    assert old.is_dir()


def numbers(stack: Stack) -> list[int]:
    return [int(line) for line in stack.exec("db", "cat", "/data/log").split()]


def test_the_plan_says_where_a_volume_keeps_its_users(stack: Stack) -> None:
    stack.write(ONE % "")
    plan = json.loads(stack.run("plan", "--json").stdout)
    volume = next(s for s in plan["steps"] if s["kind"] == "volume")
    task = next(s for s in plan["steps"] if s["kind"] == "task")
    assert volume["node"] == task["node"] != ""
    assert "its users stay where it is" in volume["reason"]


def test_a_writer_loses_nothing_when_its_volume_moves(stack: Stack, cluster: Pystack) -> None:
    stack.up(LOGGER)
    source = home_of(stack)
    for target in ("n3", "n1") if source == "n1" else ("n1", "n3"):
        cluster("volume", "move", f"{stack.name}_data", target)
        found = numbers(stack)
        assert found == list(range(1, len(found) + 1))
        assert home_of(stack) == target
    refused = cluster("volume", "move", f"{stack.name}_data", "n2", check=False)
    assert refused.returncode == 1
    assert "cannot go to n2: constraint: node.name != n2" in refused.stderr


def test_the_other_replicas_of_a_set_run_on_while_the_volume_of_one_moves(stack: Stack, cluster: Pystack) -> None:
    stack.up(
        "services:\n  db:\n    image: busybox\n    command: sleep 10000\n    stop_signal: SIGKILL\n    x-stable: true\n"
        "    volumes: [data:/data]\n    deploy: {replicas: 2, placement: {max_replicas_per_node: 1}}\nvolumes: {data: {}}\n"
    )
    before = stack.ps()
    (target,) = {"n1", "n2", "n3"} - {str(row["node"]) for row in before.values()}
    cluster("volume", "move", f"{stack.name}_data-2", target)
    after = stack.ps()
    assert after["db-2"]["node"] == target
    assert after["db-2"]["addresses"] == before["db-2"]["addresses"]
    assert {name: (row["id"], row["started"]) for name, row in after.items() if name == "db-1"} == {
        "db-1": (before["db-1"]["id"], before["db-1"]["started"])
    }
    said = cluster("node", "drain", target).stderr
    cluster("node", "activate", target)
    assert f"{stack.name}-db-2 stays on {target}, where its volume {stack.name}_data-2 lives: `pystack volume move" in said


def test_a_volume_that_follows_leaves_a_drained_node_with_its_users(stack: Stack, cluster: Pystack) -> None:
    stack.up(LOGGER.replace("data: {}", "data: {x-volume: {follow: true}}"))
    source = home_of(stack)
    try:
        cluster("node", "drain", source)
        target = home_of(stack)
        assert target not in (source, "n2")
        assert stack.ps()["db-1"]["node"] == target
        found = numbers(stack)
        assert found == list(range(1, len(found) + 1))
    finally:
        cluster("node", "activate", source)


@pytest.mark.parametrize(
    ("machine", "point"),
    [
        ("n3", "move.receive"),
        ("n3", "move.commit"),
        ("n1", "move.begun"),
        ("n1", "move.stopped"),
        ("n1", "move.arrived"),
        ("n1", "move.switched"),
        ("n1", "move.settled"),
    ],
)
@pytest.mark.long
def test_a_move_survives_a_kill_at(stack: Stack, cluster: Pystack, machine: str, point: str) -> None:
    stack.up(LOGGER)
    if home_of(stack) != "n1":
        cluster("volume", "move", f"{stack.name}_data", "n1")
    home = Path(f"/var/lib/pystack-lab/{cluster.lab}/{machine}")
    process = home / ("run/server.pid" if machine == "n1" else "run/agent.pid")
    (home / "failpoint").write_text(point)
    before = process.read_text()
    cluster("lab", "fault", "--name", cluster.lab, "kill", machine, "agent")
    eventually(lambda: _another(process, before), 20)
    armed = process.read_text()

    def falls() -> None:  # the server may not have seen yet that the agent is another: such a move fails before the point
        eventually(lambda: _all_ready(cluster), 20)
        assert cluster("volume", "move", f"{stack.name}_data", "n3", check=False).returncode == 1
        eventually(lambda: _another(process, armed), 2)

    eventually(falls, 20)
    eventually(lambda: _all_ready(cluster), 20)

    def runs_on() -> None:
        task = stack.ps()["db-1"]
        assert task["state"] == "running"
        found = numbers(stack)
        assert found == list(range(1, len(found) + 1))
        assert [n for n in ("n1", "n2", "n3") if _folder(stack, n).exists()] == [task["node"]]
        assert not list(Path(f"/var/lib/pystack-lab/{cluster.lab}").glob("*/volumes/.incoming*"))

    eventually(runs_on, 20)
    there = stack.ps()["db-1"]["node"]
    assert there == ("n3" if point in ("move.switched", "move.settled") else "n1")
    cluster("volume", "move", f"{stack.name}_data", "n1" if there == "n3" else "n3")
    runs_on()


def _another(process: Path, before: str) -> None:
    """The machine's init wrote down another process."""
    assert process.read_text() not in (before, "")


def _all_ready(cluster: Pystack) -> None:
    done = cluster("node", "ls", "--format", "json", check=False)
    assert done.returncode == 0
    assert [row["state"] for row in json.loads(done.stdout)] == ["ready"] * 3
