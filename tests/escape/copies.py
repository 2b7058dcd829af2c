"""Attacks by archives of images, and by copies into and out of a container."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.escape import kit
from tests.escape.ground import LOOKED, SLEEP, Attack, Content, Ground, shell, stack_file
from tests.escape.kit import entry
from tests.escape.layers import folder, link
from tests.images import layout, tar_of

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
    g.begin()
    box = g.start(["/usr/bin/python3", *flipping("/srv/d", "/srv/l")[1:]])
    entries = dict([folder("d"), entry("d/file", b"own"), link("l", g.outside / "folder")])
    g.copy_in(box, "/srv", kit.pack(entries))
    yield box


def copy_out_race(g: Ground) -> str:
    with racing(g) as box:
        return " ".join({g.copy_out(box, "/srv/d/file") for _ in range(ROUNDS)})


def copy_in_race(g: Ground) -> str:
    with racing(g) as box:
        return " ".join({g.copy_in(box, "/srv/d", tar_of({"new": b"evil"})) for _ in range(ROUNDS)})


@contextmanager
def racing_here(g: Ground) -> Iterator[Path]:
    (g.outside / "folder/file").write_text(g.field.secret)
    g.begin()
    (g.place / "d").mkdir()
    (g.place / "d/file").write_text("own")
    (g.place / "l").symlink_to(g.outside / "folder")
    with subprocess.Popen(flipping(str(g.place / "d"), str(g.place / "l")), stdout=subprocess.PIPE) as flip:
        try:
            assert flip.stdout
            assert flip.stdout.readline()
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


def given(g: Ground) -> None:
    """Note what lies in *place* that gives its finder rights."""
    for path in g.place.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) or (mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(mode)):
            g.gains.append(f"{path.name} has mode {stat.filemode(mode)}")


def rights(g: Ground) -> Mapping[tarfile.TarInfo, bytes]:
    """A set-user-ID program and a device, both for everybody."""
    disk = entry("t/disk", type=tarfile.BLKTYPE, devmajor=g.field.block[0], devminor=g.field.block[1], mode=0o666)
    return dict([folder("t"), entry("t/program", b"evil", mode=0o6755), disk])


def client_copy_rights(g: Ground) -> str:
    box = g.start(SLEEP)
    g.copy_in(box, "/srv", kit.pack(rights(g)))
    done = g.field.pystack("container", "cp", f"{g.name}:/srv/t/.", str(g.place), check=False)
    given(g)
    return done.stderr


def client_copy_rights_unpacked(g: Ground) -> None:
    g.unpack(rights(g))
    given(g)


# build contexts and build steps


def build(g: Ground, steps: str, *, privileged: bool = False) -> str:
    """What is said to a build of *steps* upon busybox, whose context is *place*. What it leaves in /found is looked through."""
    (g.place / "Dockerfile").write_text(f"FROM busybox\n{steps}\n")
    service = {"image": f"{g.name}:latest", "build": {"context": str(g.place), "privileged": privileged}}
    text = stack_file(g, json.dumps({"services": {"a": service}}), "build")
    if "Error: " not in text:
        found = g.run(["cat", "/found"])
        g.take(found)
        g.gains += ["a build step mounts"] if "mounted" in found else []
    return text


def build_mount(g: Ground, *, privileged: bool = False) -> str:
    return build(g, "RUN mount -t tmpfs none /tmp && echo mounted > /found", privileged=privileged)


def build_copies_link(g: Ground) -> str:
    (g.place / "d").symlink_to(g.outside)
    return build(g, "COPY d/file /found")


def build_copies_followed(g: Ground) -> None:
    (g.place / "d").symlink_to(g.outside)
    g.take((g.place / "d/file").read_text())


def build_reads_host(g: Ground) -> str:
    return build(g, f"RUN cat {g.outside}/file /proc/1/root{g.outside}/file /proc/*/root{g.outside}/file > /found; true")


def build_reads_as_host(g: Ground) -> None:
    words = f"cat {g.outside}/file /proc/1/root{g.outside}/file"
    g.take(shell("sh", "-c", words).stdout)


ROWS = (
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
        "Could not find the file",
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
        "client_copy_rights",
        "cp of a set-user-ID program and of a device, for everybody",
        "rights are left out, and devices",
        "tarfile without a filter",
        client_copy_rights,
        client_copy_rights_unpacked,
    ),
    Content(
        "build_mount",
        "a build step mounts",
        "no CAP_SYS_ADMIN; seccomp",
        "`privileged: true`",
        build_mount,
        lambda g: build_mount(g, privileged=True),
    ),
    Content(
        "build_copies_link",
        "a link in a build context, to a file of the host, is copied",
        "looked up below the context",
        "opened by its path",
        build_copies_link,
        build_copies_followed,
    ),
    Content(
        "build_reads_host",
        "a build step reads a file of the host",
        "namespaces: steps run over an OCI runtime",
        "the same words run on the host",
        build_reads_host,
        build_reads_as_host,
    ),
)
