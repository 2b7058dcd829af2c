"""Images and containers that mean harm, by the way that users take: load, run, cp, build. Each ends in one sentence.

The archives themselves have their table in tests/trees/test_extract.py.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack
from tests.images import archive, busybox_rootfs, tar_of
from tests.trees.test_extract import HOSTILE

EVIL_SOURCE = b"# coding: evil\n" + b"\n" * 5000
EVIL_CODEC = b"import os\nos.close(os.open('/executed', os.O_CREAT | os.O_WRONLY))\nraise LookupError\n"


def with_codec(layer: bytes) -> bytes:
    """*layer*, after what Python would find in there if it looked for the source lines of a traceback, and ran to read them."""
    library = Path(os.__file__).parent
    programs = [library / name for name in ("tarfile.py", "os.py", "encodings/__init__.py")]
    programs += (Path(__file__).parents[2] / "agent").rglob("*.py")
    files: dict[str, bytes | str | None] = {str(path).lstrip("/"): EVIL_SOURCE for path in programs}
    files[str(library / "encodings/evil.py").lstrip("/")] = EVIL_CODEC
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)  # type: ignore[arg-type]
            made.addfile(info, io.BytesIO(content))  # type: ignore[arg-type]
        end = made.offset  # where the next entry would be
    return out.getvalue()[:end] + layer


def left_over(lab: Pystack) -> list[str]:
    state = Path(lab.environment["PYSTACK_ROOT"])
    return [str(p) for pattern in ("layers/*.tmp", "images/**/*.tmp") for p in state.glob(pattern)]


@pytest.mark.parametrize(
    "name",
    [
        "zero byte in a pax path",
        "zero byte in an attribute's name",
        "pax sparse map of garbage",
        "a hole of a petabyte",
        "dots",
        "a hard link to outside",
        "owner of 2^40",
        "ends within a file",
        "a path of thousands of parts",
    ],
)
def test_a_hostile_layer_is_refused_whole_and_the_next_image_works(name: str, lab: Pystack, tmp_path: Path) -> None:
    data, said = HOSTILE[name]
    path = archive(tmp_path / "hostile.tar", [busybox_rootfs(), with_codec(data)], name="docker.io/library/hostile:latest")
    done = lab("image", "load", "-i", str(path), check=False, timeout=30)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hostile" not in lab("image", "ls").stdout
    assert left_over(lab) == []
    state = Path(lab.environment["PYSTACK_ROOT"])
    assert not list(state.glob("layers/*/executed"))
    assert not Path("/executed").exists()
    layers = [busybox_rootfs(), tar_of({"srv/good": b"good"})]
    good = archive(tmp_path / "good.tar", layers, name="docker.io/library/good:latest")
    lab("image", "load", "-i", str(good))
    assert lab("container", "run", "--rm", "good", "cat", "/srv/good").stdout == "good"
    lab("image", "rm", "good")


def test_copying_out_of_a_container_asks_nothing_of_its_libc(lab: Pystack, tmp_path: Path) -> None:
    """CVE-2019-14271. Whoever opened one of these files would wait for ever."""
    fifos = (
        "etc/passwd",
        "etc/group",
        "etc/nsswitch.conf",
        "etc/localtime",
        "etc/ld.so.cache",
        "lib/libnss_files.so.2",
        "lib/x86_64-linux-gnu/libnss_files.so.2",
        "lib/aarch64-linux-gnu/libnss_files.so.2",
        "usr/lib/gconv/gconv-modules",
    )
    lab("container", "run", "-d", "--name", "trap", "busybox", "sleep", "1000")
    script = "; ".join(f"rm -f /{name}; mkdir -p $(dirname /{name}); mkfifo /{name}" for name in fifos)
    lab("container", "exec", "trap", "sh", "-c", f"echo out > /srv/f; chown 1234:5678 /srv/f; {script}")
    lab("container", "cp", "trap:/srv", str(tmp_path / "got"), timeout=20)
    assert (tmp_path / "got/f").read_text() == "out\n"
    (tmp_path / "in").write_text("in\n")
    lab("container", "cp", str(tmp_path / "in"), "trap:/srv/in", timeout=20)
    lab("container", "stop", "-t", "0", "trap")
    lab("container", "cp", "trap:/srv/in", str(tmp_path / "back"), timeout=20)
    assert (tmp_path / "back").read_text() == "in\n"
    lab("container", "rm", "trap")


@pytest.mark.parametrize("running", [True, False])
def test_an_archive_out_of_a_container_writes_through_no_link(running: bool, lab: Pystack, tmp_path: Path) -> None:
    lab("container", "run", "-d", "--name", "links", "busybox", "sleep", "1000")
    outside = tmp_path / "outside"
    outside.mkdir()
    script = f"mkdir -p /d/sub; ln -s {outside} /d/link; echo x > /d/sub/f; chmod 6777 /d/sub/f"
    lab("container", "exec", "links", "sh", "-c", script)
    if not running:
        lab("container", "stop", "-t", "0", "links")
    goal = tmp_path / "goal"
    goal.mkdir()
    (goal / "d").mkdir()
    (goal / "d/sub").symlink_to(outside)  # as an earlier copy of a hostile container's could have left it
    done = lab("container", "cp", "links:/d", str(goal), check=False)
    lab("container", "rm", "-f", "links")
    assert done.returncode == 0, done.stderr
    assert not any(outside.iterdir())
    assert (goal / "d/sub/f").read_text() == "x\n"
    assert (goal / "d/sub/f").stat().st_mode & 0o7777 == 0o777
    assert (goal / "d/link").readlink() == outside


@pytest.mark.parametrize("name", ["hosts", "hostname", "resolv.conf"])
def test_links_in_etc_lead_nowhere_on_the_host(name: str, lab: Pystack, tmp_path: Path) -> None:
    targets = f"{tmp_path}/made", f"../../../../../../../..{tmp_path}/made", "/proc/self/root/made", "/dev/null"
    for number, target in enumerate(targets):
        image = f"linked{number}"
        layers = [busybox_rootfs(), tar_of({f"etc/{name}": target})]
        path = archive(tmp_path / "i.tar", layers, name=f"docker.io/library/{image}:latest")
        lab("image", "load", "-i", str(path))
        done = lab("container", "run", "--rm", "--hostname", "told", image, "cat", f"/etc/{name}", check=False)
        assert done.returncode == 0 or len(done.stderr.splitlines()) == 1
        lab("image", "rm", image)
        assert not (tmp_path / "made").exists()
        assert not Path("/made").exists()


def device(name: str) -> bytes:
    """A layer with a node of the kernel's endless zeros."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.devmajor, info.devminor = tarfile.CHRTYPE, 0o666, 1, 5
    return info.tobuf() + b"\0" * 1024


RANGE = "is out of range: at most 2147483647"
PASSWD: dict[str, tuple[bytes, str, str]] = {
    "a device": (device("etc/passwd"), "app", "the image's /etc/passwd cannot be read: not a regular file"),
    "a directory": (tar_of({"etc/passwd": None}), "app", "the image's /etc/passwd cannot be read: not a regular file"),
    "a link to a device": (
        tar_of({"etc/passwd": "/dev/zero"}),
        "app",
        "unable to find user app: no matching entries in passwd file",
    ),
    "digits of another script": (
        tar_of({"etc/passwd": "app:x:٣٤:٥٦::/:/bin/sh\n".encode()}),
        "app",
        "unable to find user app: no matching entries in passwd file",
    ),
    "a group of 2^40": (
        tar_of({"etc/passwd": b"app:x:1000:1099511627776::/:/bin/sh\n"}),
        "app",
        f"group 1099511627776 {RANGE}",
    ),
    "an owner of 2^32": (tar_of({"etc/passwd": b"app:x:4294967296:1::/:/bin/sh\n"}), "app", f"user 4294967296 {RANGE}"),
    "a file of 9 MB": (tar_of({"etc/passwd": b"#" * (9 << 20)}), "app", "cannot be read: larger than 8388608 bytes"),
    "a user of 2^40": (tar_of({}), "1099511627776", f"user 1099511627776 {RANGE}"),
}


@pytest.mark.parametrize("name", PASSWD)
def test_an_odd_passwd_is_told_in_one_sentence(name: str, lab: Pystack, tmp_path: Path) -> None:
    layer, user, said = PASSWD[name]
    layers = [busybox_rootfs(), tar_of({"etc/.wh.passwd": b""}), layer]
    path = archive(tmp_path / "i.tar", layers, config={"Cmd": ["sh"], "User": user}, name="docker.io/library/odd:latest")
    lab("image", "load", "-i", str(path))
    done = lab("container", "run", "--rm", "odd", "id", check=False, timeout=20)
    lab("image", "rm", "odd")
    assert done.returncode != 0
    assert done.stderr.endswith(f"{said}\n")
    assert len(done.stderr.splitlines()) == 1


def test_a_working_directory_of_thousands_of_parts_is_told(stack: Stack) -> None:
    stack.write(f"services: {{a: {{image: busybox, working_dir: /{'a/' * 4000}, command: id}}}}\n")
    done = stack.run("up", "-d", check=False)
    assert done.returncode == 1
    assert "cannot be made in the container" in done.stderr


def test_a_part_of_a_volume_that_becomes_a_link_leads_nowhere(stack: Stack, tmp_path: Path) -> None:
    """CVE-2017-1002101: a container that writes to a volume puts a link where another one's part of it is to be."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text("of the host")
    text = """
services:
  a: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, volumes: ["v:/v"]}
  b:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    profiles: [later]
    volumes: [{type: volume, source: v, target: /part, volume: {subpath: part/%s}}]
volumes: {v: {}}
"""
    stack.write(text % "in")
    stack.run("up", "-d", "--wait")
    stack.exec("a", "sh", "-c", f"mkdir -p /v/part/in; echo mine > /v/part/in/f; ln -s {tmp_path}/host /v/part/out")
    later = ("-f", str(stack.file), "--profile", "later", "up", "-p", stack.name, "-d", "--wait")
    stack.pystack(*later)
    assert stack.exec("b", "cat", "/part/f") == "mine\n"
    stack.exec("a", "sh", "-c", "mv /v/part/in /v/part/away; ln -s /etc /v/part/in")
    assert stack.exec("b", "ls", "/part").split() == ["f"]  # what was mounted stays what it was
    stack.write(text % "out")
    done = stack.pystack(*later, check=False)
    assert done.returncode != 0
    assert "has no part/out" in done.stderr
