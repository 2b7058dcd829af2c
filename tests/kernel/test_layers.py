"""Images of many layers: by either way of naming them to the kernel, in a user namespace, built upon, and too many."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import mounts
from agent.containers import userns
from agent.errors import AgentError, ImageError
from agent.images.store import mountable
from agent.rootless import MARK
from orchestrator.lab import lab as labs
from tests.conftest import Pystack, Stack, eventually
from tests.images import archive, busybox_rootfs, tar_of

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")]
SINGLY = [
    pytest.param(
        True,
        id="one by one",
        marks=pytest.mark.skipif(
            os.geteuid() == 0 and not mounts.takes_layers_singly(), reason="this kernel is older than 6.8"
        ),
    ),
    pytest.param(False, id="all at once"),
]
MANY = (1, 126, 127, 500)
ODD = "a:b,c\\d e\\:f"


def folders(root: Path, count: int) -> list[Path]:
    """Layers as the store has them, each with a file of its own, and `top` in all."""
    made = [root / f"{n:020x}" for n in range(count)]
    for number, path in enumerate(made):
        path.mkdir(parents=True)
        (path / f"f{number}").write_text(str(number))
        (path / "top").write_text(str(number))
    return made


def own(root: Path) -> Path:
    for part in ("upper", "work", "root"):
        (root / part).mkdir(parents=True)
    return root


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder whose path has every character that overlayfs gives a meaning, and that is longer than an option may be."""
    path = tmp_path / ODD / ("long" * 50) / ("longer" * 20)
    path.mkdir(parents=True)
    yield path
    for point in mounts.below(path):
        mounts.unmount(point)
    assert not mounts.below(path)


@pytest.mark.parametrize("singly", SINGLY)
@pytest.mark.parametrize("count", [1, 126, 127, mounts.PAGE_LAYERS, 500])
def test_both_ways_mount_the_same(place: Path, singly: bool, count: int) -> None:
    lower, written = folders(place / "layers", count), own(place / "own")
    before = Path.cwd()
    if count > mounts.PAGE_LAYERS and not singly:
        with pytest.raises(AgentError, match=f"the names of {count} layers do not fit"):
            mounts.overlay(written / "root", lower, written, singly=singly)
        return
    mounts.overlay(written / "root", lower, written, singly=singly)
    assert Path.cwd() == before
    assert (written / "root/top").read_text() == str(count - 1)
    assert len(list((written / "root").iterdir())) == count + 1
    (written / "root/f0").write_text("changed")
    assert (written / "upper/f0").read_text() == "changed"
    (place / "seen").mkdir()
    mounts.layers(place / "seen", lower, singly=singly)
    assert (place / "seen/f0").read_text() == "0"
    with pytest.raises(OSError, match="Read-only"):
        (place / "seen/f0").write_text("changed")
    assert mounts.below(place) == sorted([place / "seen", written / "root"], key=lambda p: -len(str(p)))


@pytest.mark.parametrize("singly", SINGLY)
def test_what_the_kernel_refuses_is_said(place: Path, singly: bool) -> None:
    lower, written = folders(place / "layers", 2), own(place / "own")
    (written / "work").rmdir()
    with pytest.raises(AgentError, match=r"mount overlay at .*(No such file|workdir)"):
        mounts.overlay(written / "root", lower, written, singly=singly)
    with pytest.raises(AgentError, match=r"mount overlay at .*No such file"):
        mounts.overlay(written / "root", lower, place / "none", singly=singly)


@pytest.mark.parametrize("singly", SINGLY)
def test_owners_are_mapped_in_all_layers(place: Path, singly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 500 if singly else mounts.PAGE_LAYERS
    monkeypatch.setattr(mounts, "takes_layers_singly", lambda: singly)
    lower, written = folders(place / "layers", count), own(place / "own")
    user, net, first = place / "ns/user", place / "ns/net", userns.FIRST
    userns.create(user, net, first)
    userns.root(written / "root", lower, written, user, first, place / "stage")
    assert mounts.below(place / "stage") == []
    assert {p.stat().st_uid for p in (written / "root").iterdir()} == {first}
    assert (written / "root/top").read_text() == str(count - 1)


@pytest.mark.parametrize("singly", SINGLY)
def test_without_root(place: Path, singly: bool) -> None:
    count = 500 if singly else mounts.PAGE_LAYERS
    lower, written = folders(place / "layers", count), own(place / "own")
    program = f"""
from pathlib import Path
from agent import mounts
lower, own = sorted(Path({str(lower[0].parent)!r}).iterdir()), Path({str(written)!r})
mounts.overlay(own / "root", lower, own, singly={singly})
(own / "root/f0").unlink()
print((own / "root/top").read_text(), len(list((own / "root").iterdir())))
"""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, MARK: "1000"},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.stdout.split() == [str(count - 1), str(count)], done.stderr


def image(lab: Pystack, count: int, *more: bytes) -> str:
    """A name for an image of *count* layers: busybox, and one file each on top of it."""
    name = f"docker.io/library/layers:{count}"
    parts = [tar_of({f"srv/f{n}": b"%d" % n, "srv/top": b"%d" % n}) for n in range(1, count - len(more))]
    path = Path(lab.environment["PYSTACK_ROOT"]) / f"layers{count}.tar"
    archive(path, [busybox_rootfs(), *parts, *more], name=name, compress="")
    lab("image", "load", "-i", str(path), timeout=300)
    path.unlink()
    return f"layers:{count}"


@pytest.fixture(scope="module")
def images(lab: Pystack) -> dict[int, str]:
    return {count: image(lab, count) for count in MANY}


@pytest.mark.parametrize("mode", ["host", "auto"])
@pytest.mark.parametrize("count", MANY)
def test_they_run(lab: Pystack, images: dict[int, str], count: int, mode: str) -> None:
    done = lab(
        "container",
        "run",
        "--rm",
        "--userns",
        mode,
        images[count],
        "sh",
        "-c",
        "cat /srv/top; echo; touch /x && stat -c %u /x /srv; ls /srv | wc -l",
    )
    top = [str(count - 1)] if count > 1 else []
    assert done.stdout.split() == [*top, "0", "0", str(count + 1 if count > 1 else 1)]


def test_more_than_are_allowed_are_refused_before_any_is_unpacked(lab: Pystack) -> None:
    before = sorted((Path(lab.environment["PYSTACK_ROOT"]) / "layers").iterdir())
    with pytest.raises(AssertionError, match=r"has 501 layers; 500 are allowed \(limits.layers\)"):
        image(lab, 501)
    assert sorted((Path(lab.environment["PYSTACK_ROOT"]) / "layers").iterdir()) == before


def test_more_than_the_kernel_mounts_do_not_run() -> None:
    most = mounts.most_layers()
    mountable("of this test", [str(n) for n in range(most)])
    with pytest.raises(ImageError, match=f"has {most + 1} layers, and this kernel mounts at most {most}: flatten"):
        mountable("of this test", [str(n) for n in range(most + 1)])


def test_commit_adds_one_until_there_are_too_many(lab: Pystack, images: dict[int, str]) -> None:
    socket = f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"
    said = {}
    for count in (127, 500):
        lab("container", "run", "--name", f"c{count}", images[count], "sh", "-c", "echo new > /srv/new")
        try:
            said[count] = lab.on(
                "n1",
                "curl",
                "-s",
                "--unix-socket",
                socket,
                "-X",
                "POST",
                f"http://node/commit?container=c{count}&repo=committed&tag={count}",
            )
        finally:
            lab("container", "rm", "-f", f"c{count}")
    assert lab("container", "run", "--rm", "committed:127", "cat", "/srv/top", "/srv/new").stdout == "126new\n"
    assert "501 layers" in said[500], said


def test_the_same_layer_may_come_again(lab: Pystack) -> None:
    """BuildKit's empty layer is in many an image several times; overlayfs takes a folder once."""
    twice, between = tar_of({"srv/a": b"first"}), tar_of({"srv/a": b"between", "srv/.wh.hello": b""})
    path = Path(lab.environment["PYSTACK_ROOT"]) / "twice.tar"
    archive(path, [busybox_rootfs(), twice, between, twice], name="docker.io/library/twice:1")
    lab("image", "load", "-i", str(path))
    assert lab("container", "run", "--rm", "twice:1", "sh", "-c", "cat /srv/a; ls /srv").stdout == "firsta\n"


@pytest.mark.parametrize("folder", ["a,b\\c", "a:b,c\\d"])
def test_a_state_folder_of_any_name(lab: Pystack, tmp_path: Path, folder: str) -> None:
    """A second instance on the machine `outside`, whose paths have what overlayfs would take for its own."""
    root = Path(lab.environment["PYSTACK_ROOT"]).parent / folder
    path = archive(tmp_path / "few.tar", [busybox_rootfs(), tar_of({"srv/a": b"a"})], name="docker.io/library/few:1")
    here = ("env", "-u", "PYSTACK_HOST", f"PYSTACK_ROOT={root}", sys.executable, "-m", "orchestrator")
    enter = (*labs.enter(labs.find(lab.lab), "outside"), *here)
    server = subprocess.Popen([*enter, "server"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: lab.on("outside", "test", "-S", f"{root}/run/pystack.sock"), 20)
        lab.on("outside", *here, "image", "load", "-i", str(path))
        for mode in ("host", "auto"):
            words = ("container", "run", "--rm", "--network", "none", "--userns", mode, "few:1", "cat", "/srv/a")
            said = lab.on("outside", *here, *words)
            assert said == "a"
        lab.on("outside", *here, "container", "run", "--name", "kept", "--network", "none", "few:1", "echo", "logged")
        if ":" not in folder:  # conmon ends a log's path at the next colon
            assert lab.on("outside", *here, "container", "logs", "kept") == "logged\n"
    finally:
        server.terminate()
        server.wait(20)


def test_built_upon(stack: Stack, images: dict[int, str]) -> None:
    folder = stack.directory / "app"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {images[127]}\nRUN echo built > /srv/built\nCMD sleep 1000\n")
    stack.up("services:\n  a: {build: ./app, stop_grace_period: 0s}\n")
    assert stack.exec("a", "cat", "/srv/top", "/srv/built") == "126built\n"
