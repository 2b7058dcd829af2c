"""Each instruction and flag of a Dockerfile, built by a node, and looked at in the image that came of it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import re
import socket
import tarfile
import threading
import urllib.parse
import uuid
from pathlib import Path
from typing import Any

import pytest

from agent.build.config import DEFAULT_PATH
from agent.contract.container import BUILD_EXTRAS
from tests.builds import Failed, Files, Node, Seen
from tests.conftest import Pystack
from tests.images import tar_of

pytestmark = pytest.mark.kernel


@pytest.fixture
def node(lab: Pystack) -> Node:
    return Node(f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock")


def word() -> str:
    return uuid.uuid4().hex[:10]


# --- RUN -----------------------------------------------------------------------------------------------------------


def test_run_in_its_forms(node: Node) -> None:
    built = node.build(
        "FROM busybox\nENV A=env\nARG B=arg\n"
        "RUN echo shell $A $B > /shell\n"
        'RUN ["sh", "-c", "echo exec $A > /exec"]\n'
        "RUN <<EOF\nset -e\necho here $B > /heredoc\nEOF\n"
        "RUN cat <<ONE > /one && cat <<'TWO' > /two\n$A\nONE\n$A\nTWO\n"
        'RUN <<EOF\n#!/bin/awk -f\nBEGIN { print "awk" > "/awk" }\nEOF\n'
        'SHELL ["/bin/sh", "-e", "-c"]\nRUN echo $0 > /own; echo x\n'
    ).files()
    assert [built[n].content for n in ("shell", "exec", "heredoc", "one", "two", "awk")] == [
        "shell env arg\n",
        "exec env\n",
        "here arg\n",
        "env\n",
        "$A\n",
        "awk\n",
    ]


def test_run_leaves_what_it_wrote_and_nothing_else(node: Node) -> None:
    built = node.build(
        "FROM busybox\nRUN echo x > /new && rm /srv/hello && rm -r /var/www && mkdir /var/www && touch /var/www/other"
        " && ln /new /hard && ln -s new /soft && mknod /pipe p && chmod 4755 /new\n"
    )
    with built.archive() as archive:
        file = archive.extractfile("manifest.json")
        assert file
        last = json.load(file)[0]["Layers"][-1]
        layer = archive.extractfile(last)
        assert layer
        with tarfile.open(fileobj=layer) as inner:
            names = {e.name for e in inner}
    assert names == {
        "new",
        "hard",
        "soft",
        "pipe",
        "srv",
        "srv/.wh.hello",
        "var",
        "var/www",
        "var/www/.wh..wh..opq",
        "var/www/other",
    }
    files = built.files()
    assert files["new"].mode == 0o4755 or files["hard"].mode == 0o4755
    assert "srv/hello" not in files
    assert "var/www/index.html" not in files


def test_run_that_changes_nothing_makes_no_layer(node: Node) -> None:
    built = node.build("FROM busybox\nRUN true\nRUN cd /proc && ls /sys /dev /etc/hosts > /dev/null\n")
    assert len(built.document()["rootfs"]["diff_ids"]) == 2
    assert [h.get("empty_layer") for h in built.document()["history"]] == [None, None, True, True]


def test_run_as_user_in_workdir(node: Node) -> None:
    built = node.build(
        "FROM busybox\nWORKDIR /a\nWORKDIR b\nRUN chmod 777 .\nUSER app\nRUN id -un > who && pwd > where\n"
    ).files()
    assert (built["a/b/who"].content, built["a/b/where"].content) == ("app\n", "/a/b\n")
    assert built["a/b/who"].owner == (1000, 1000)


def test_a_failing_run_ends_the_build_in_dockers_words(node: Node) -> None:
    with pytest.raises(Failed) as caught:
        node.build("FROM busybox\nRUN echo before\nRUN echo said; exit 7\nRUN echo after > /dev/null\n")
    assert caught.value.message == "The command '/bin/sh -c echo said; exit 7' returned a non-zero code: 7"
    assert caught.value.code == 7
    assert "said\n" in caught.value.said
    assert "Step 4" not in caught.value.said
    with pytest.raises(Failed) as caught:
        node.build('FROM busybox\nRUN ["/nothing"]\n')
    assert caught.value.code == 127
    with pytest.raises(Failed, match="Dockerfile:3:1: unable to find user nobody-here: no matching entries in passwd file"):
        node.build("FROM busybox\nUSER nobody-here\nRUN true\n")


def test_networks_of_run(node: Node) -> None:
    built = node.build(
        "FROM busybox\nRUN ip -o link | grep -c eth0 > /default\nRUN --network=none ip -o link | wc -l > /none\n"
    ).files()
    assert (built["default"].content, built["none"].content) == ("1\n", "1\n")
    with pytest.raises(Failed, match=r"Dockerfile:2:1: network.host is not allowed"):
        node.build("FROM busybox\nRUN --network=host true\n")
    names = node.build("FROM busybox\nRUN --network=host ip -o link > /host\n", networkmode="host").text("host")
    assert len(names.splitlines()) > 2, "the machine's own, bridges among them"
    none = node.build("FROM busybox\nRUN ip -o link | wc -l > /none\n", networkmode="none").text("none")
    assert none == "1\n"
    hosts = node.build("FROM busybox\nRUN cat /etc/hosts > /hosts\n", extrahosts="there:10.9.8.7").text("hosts")
    assert "10.9.8.7\tthere" in hosts


def test_a_run_has_no_more_rights_than_a_container(node: Node) -> None:
    text = (
        "FROM busybox\n"
        "RUN grep -E 'CapEff|Seccomp:|NoNew' /proc/self/status > /status; ls /dev > /dev.txt; (mount -t tmpfs x /mnt; true)\n"
    )
    sandbox = node.build(text).files()
    assert "CapEff:\t00000000a80425fb" in sandbox["status"].content
    assert "Seccomp:\t2" in sandbox["status"].content
    assert "kmsg" not in sandbox["dev.txt"].content
    insecure = "FROM busybox\nRUN --security=insecure mkdir /m && mount -t tmpfs x /m && umount /m && touch /may\n"
    with pytest.raises(Failed, match=r"security.insecure is not allowed"):
        node.build(insecure)
    assert "may" in node.build(insecure, entitlements=["security.insecure"]).files()
    assert "may" in node.build(insecure.replace("--security=insecure ", ""), privileged="1").files()


def test_limits_reach_run(node: Node) -> None:
    built = node.build(
        "FROM busybox\nRUN ulimit -n > /files; df -k /dev/shm | tail -1 | awk '{print $2}' > /shm\n",
        ulimits=[{"Name": "nofile", "Soft": 123, "Hard": 456}],
        shmsize=str(1 << 20),
    ).files()
    assert (built["files"].content, built["shm"].content) == ("123\n", "1024\n")
    group = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    assert node.build(f"FROM busybox\nRUN {group} > /m; true\n", memory=str(64 << 20)).text("m") == f"{64 << 20}\n"


# --- RUN --mount ---------------------------------------------------------------------------------------------------


def test_cache_mounts_stay_between_builds_and_out_of_images(node: Node) -> None:
    name = word()
    text = (
        "FROM busybox\nRUN --mount=type=cache,id={0},target=/c ls /c > /before; echo {1} >> /c/log\n"
        "RUN --mount=type=cache,id={0},target=/c cp /c/log /log; true {1}\n"
    )
    first, second = node.build(text.format(name, "1")).files(), node.build(text.format(name, "2")).files()
    assert (first["before"].content, second["before"].content) == ("", "log\n")
    assert second["log"].content == "1\n2\n"
    assert "c" not in second
    assert "c/log" not in second
    own = node.build(
        f"FROM busybox\nRUN --mount=type=cache,id={name}o,target=/c,uid=1000,gid=29,mode=0700 stat -c '%u %g %a' /c > /own\n"
    )
    assert own.text("own") == "1000 29 700\n"
    ro = node.build(
        f"FROM busybox\nRUN --mount=type=cache,id={name},target=/c,ro (touch /c/x || echo refused > /ro) 2>/dev/null\n"
    )
    assert ro.text("ro") == "refused\n"
    filled = node.build(
        f"FROM busybox AS b\nRUN mkdir /f && echo x > /f/x\nFROM busybox\n"
        f"RUN --mount=type=cache,id={name}f,target=/c,from=b,source=/f cp /c/x /x\n"
    )
    assert filled.text("x") == "x\n"


def test_a_locked_cache_has_one_user_at_a_time(node: Node) -> None:
    name = word()
    one = (
        f"RUN --mount=type=cache,id={name},target=/c,sharing=locked test ! -e /c/busy && touch /c/busy && sleep 0.3 &"
        f"& rm /c/busy && echo ok > /"
    )
    built = node.build(
        f"FROM busybox AS a\n{one}a\nFROM busybox AS b\n{one}b\nFROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )
    assert {built.text("a"), built.text("b")} == {"ok\n"}


def test_bind_and_tmpfs_mounts(node: Node) -> None:
    files = {"d": None, "d/a": b"context"}
    built = node.build(
        "FROM busybox AS base\nRUN mkdir /b && echo stage > /b/x\nFROM busybox\n"
        "RUN --mount=type=bind,source=d,target=/m cat /m/a > /1; (touch /m/no || echo refused > /2) 2>/dev/null\n"
        "RUN --mount=target=/m,rw touch /m/d/gone && ls /m/d > /3\n"
        "RUN --mount=from=base,source=/b/x,target=/m/x cp /m/x /4\n"
        "RUN --mount=from=busybox,target=/img cp /img/srv/hello /5\n"
        "RUN --mount=type=tmpfs,target=/t,size=1m touch /t/x && df -k /t | tail -1 | awk '{print $2}' > /6\n",
        files,
    ).files()
    assert [built[n].content for n in "123456"] == [
        "context",
        "refused\n",
        "a\ngone\n",
        "stage\n",
        "hello from the image\n",
        "1024\n",
    ]
    assert not {"m", "t", "img", "m/x"} & built.keys()


def test_a_bind_mount_counts_for_the_cache_by_its_content(node: Node) -> None:
    text = f"FROM busybox\nRUN --mount=source=a,target=/a cp /a /b && echo {word()}\n"
    node.build(text, {"a": b"1", "other": b"1"})
    assert node.build(text, {"a": b"1", "other": b"2"}).hits == 1
    assert node.build(text, {"a": b"2", "other": b"2"}).text("b") == "2"


def test_secrets_are_in_no_layer_no_cache_and_no_log(node: Node, lab: Pystack) -> None:
    hush = f"hush-{word()}"
    text = (
        "FROM busybox\n"
        "RUN --mount=type=secret,id=token,required sha256sum < /run/secrets/token > /sum; "
        "stat -c '%a %u' /run/secrets/token > /mode\n"
        "RUN --mount=type=secret,id=token,target=/deep/er,mode=0440,uid=1000 stat -c '%a %u' /deep/er > /own\n"
        "RUN --mount=type=secret,id=token,env=TOKEN printf %s $TOKEN | sha256sum > /env\n"
        "RUN --mount=type=secret,id=none,target=/none ls /none 2>/dev/null || echo none > /none.txt\n"
    )
    built = node.build(
        text, {BUILD_EXTRAS: None, f"{BUILD_EXTRAS}/secrets": None, f"{BUILD_EXTRAS}/secrets/token": hush.encode()}
    )
    files, wanted = built.files(), hashlib.sha256(hush.encode()).hexdigest()
    assert files["sum"].content.startswith(wanted)
    assert files["env"].content.startswith(wanted)
    assert [files[n].content for n in ("mode", "own", "none.txt")] == ["400 0\n", "440 1000\n", "none\n"]
    assert not {"run/secrets/token", "deep/er", "deep"} & files.keys()
    assert hush not in built.said
    assert hush.encode() not in node.ask("GET", f"/images/{built.ident}/get")[1]
    root = Path(lab.environment["PYSTACK_ROOT"])
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 22 and "overlay" not in path.parts:
            assert hush.encode() not in path.read_bytes(), path
    with pytest.raises(Failed, match="Dockerfile:2:1: secret token: not found"):
        node.build(text)
    with pytest.raises(Failed, match="no agent default came with the build"):
        node.build("FROM busybox\nRUN --mount=type=ssh,required true\n")
    node.build("FROM busybox\nRUN --mount=type=ssh true\n")


@pytest.mark.parametrize("target", ["/proc/x", "/sys", "/dev/shm", "/", "/link/self"])
def test_nothing_is_mounted_on_what_the_kernel_shows(node: Node, target: str) -> None:
    with pytest.raises(Failed, match=r"Dockerfile:3:1: .*(nothing can be mounted|must be an absolute path below)"):
        node.build(f"FROM busybox\nRUN ln -s /proc /link\nRUN --mount=type=tmpfs,target={target} true\n")


# --- COPY ----------------------------------------------------------------------------------------------------------

TREE: Files = {
    "a.txt": b"A",
    "b.txt": b"B",
    "c.md": b"C",
    "d": None,
    "d/e": None,
    "d/e/f.txt": b"F",
    "d/g.md": b"G",
    "ln": "a.txt",
    "d/ln": "../a.txt",
}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("COPY a.txt /x", {"x": "A"}),
        ("COPY a.txt /x/", {"x/a.txt": "A"}),
        ("COPY a.txt b.txt /x/", {"x/a.txt": "A", "x/b.txt": "B"}),
        ("COPY a.txt /srv", {"srv/a.txt": "A"}),
        ("COPY a.txt /srv/hello", {"srv/hello": "A"}),
        ("COPY *.txt /x/", {"x/a.txt": "A", "x/b.txt": "B"}),
        ("COPY [ab].txt /x/", {"x/a.txt": "A", "x/b.txt": "B"}),
        ("COPY ?.md /x/", {"x/c.md": "C"}),
        ("COPY d /x", {"x/e/f.txt": "F", "x/g.md": "G", "x/ln": "../a.txt"}),
        ("COPY d/ /x/", {"x/e/f.txt": "F", "x/g.md": "G", "x/ln": "../a.txt"}),
        ("COPY d/* /x/", {"x/f.txt": "F", "x/g.md": "G", "x/ln": "A"}),
        ("COPY ln /x", {"x": "A"}),
        ("COPY d/ln /x", {"x": "A"}),
        ("COPY ../a.txt /x", {"x": "A"}),
        ("COPY /a.txt /x", {"x": "A"}),
        ("COPY none*.txt a.txt /x/", {"x/a.txt": "A"}),
        ('COPY ["a.txt", "/with blank/"]', {"with blank/a.txt": "A"}),
        ("WORKDIR /w\nCOPY a.txt .", {"w/a.txt": "A"}),
        ("WORKDIR /w\nCOPY a.txt x/y", {"w/x/y": "A"}),
        ("WORKDIR /w\nCOPY d ./", {"w/e/f.txt": "F", "w/g.md": "G", "w/ln": "../a.txt"}),
        ("ARG N=a\nCOPY ${N}.txt /$N", {"a": "A"}),
        ("COPY --exclude=*.md d /x", {"x/e/f.txt": "F", "x/ln": "../a.txt"}),
        ("COPY --exclude=e --exclude=ln d /x", {"x/g.md": "G"}),
        ("COPY --exclude=b* *.txt /x/", {"x/a.txt": "A"}),
        (
            "COPY --exclude=**/*.txt --exclude=Dockerfile . /x/",
            {"x/c.md": "C", "x/d/g.md": "G", "x/d/ln": "../a.txt", "x/ln": "a.txt"},
        ),
        ("COPY --parents d/e/f.txt a.txt /x/", {"x/d/e/f.txt": "F", "x/a.txt": "A"}),
        ("COPY --parents ./d/./e/f.txt /x/", {"x/e/f.txt": "F"}),
        ("COPY --parents **/*.md /x/", {"x/c.md": "C", "x/d/g.md": "G"}),
        ("COPY --link a.txt /x/", {"x/a.txt": "A"}),
        ("COPY <<one <<two /x/\n1\none\n2\ntwo", {"x/one": "1\n", "x/two": "2\n"}),
        ("COPY <<one /x\n1 $UNSET'q' \"$HOME\" \\$x\none", {"x": "1 'q' \"\" $x\n"}),
        ("COPY <<'one' /x\n$A\none", {"x": "$A\n"}),
        ("COPY <<-one /x\n\t\ttab\n\tone", {"x": "tab\n"}),
        ("COPY a.txt <<one /x/\n1\none", {"x/a.txt": "A", "x/one": "1\n"}),
        ("ADD a.txt /x", {"x": "A"}),
    ],
)
def test_copy(node: Node, line: str, wanted: dict[str, str]) -> None:
    files = node.build(f"FROM busybox\n{line}\n", TREE).files()
    base = {p for p in files if p.split("/")[0] in ("bin", "etc", "tmp", "root", "var", "dev", "proc", "sys")} | {
        "srv/hello",
        "srv/second",
    }
    found = {p: s.content for p, s in files.items() if s.kind in "flh" and p not in base - wanted.keys()}
    assert found == wanted


@pytest.mark.parametrize(
    ("line", "path", "mode", "owner"),
    [
        ("COPY a.txt /x", "x", 0o644, (0, 0)),
        ("COPY --chmod=755 a.txt /x", "x", 0o755, (0, 0)),
        ("COPY --chmod=u=rwX,go=rX a.txt /x", "x", 0o644, (0, 0)),
        ("COPY --chmod=u+x a.txt /x", "x", 0o744, (0, 0)),
        ("COPY --chown=app a.txt /x", "x", 0o644, (1000, 1000)),
        ("COPY --chown=app:audio a.txt /x", "x", 0o644, (1000, 29)),
        ("COPY --chown=55 a.txt /x", "x", 0o644, (55, 55)),
        ("COPY --chown=55:66 d /x", "x/e/f.txt", 0o644, (55, 66)),
        ("COPY --chown=55:66 d /x", "x", 0o644, (55, 66)),
        ("COPY --chown=55:66 a.txt /n/m/x", "n/m", 0o755, (55, 66)),
        ("ARG U=7\nCOPY --chown=$U:8 a.txt /x", "x", 0o644, (7, 8)),
        ("COPY --chown=app <<F /x\nF", "x", 0o644, (1000, 1000)),
        ("COPY --link --chown=5:6 --chmod=600 a.txt /x", "x", 0o600, (5, 6)),
        ("USER app\nCOPY a.txt /x", "x", 0o644, (0, 0)),
        ("USER app\nWORKDIR /w", "w", 0o755, (1000, 1000)),
        ("WORKDIR /w/v", "w/v", 0o755, (0, 0)),
        ("RUN chown 3:4 /srv/hello\nFROM busybox\nCOPY --from=0 /srv/hello /x", "x", 0o755, (3, 4)),
        ("RUN chown 3:4 /srv/hello\nFROM busybox\nCOPY --from=0 --chown=9 /srv /x/", "x/hello", 0o755, (9, 9)),
    ],
)
def test_modes_and_owners(node: Node, line: str, path: str, mode: int, owner: tuple[int, int]) -> None:
    seen = node.build(f"FROM busybox\n{line}\n", TREE).files()[path]
    assert (oct(seen.mode), seen.owner) == (oct(mode), owner)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "COPY none /x",
            "Dockerfile:2:1: COPY failed: file not found in build context or excluded by .dockerignore: stat none",
        ),
        ("RUN exit 9\nCOPY none /x", "Dockerfile:3:1: COPY failed"),
        ("ADD none /x", "Dockerfile:2:1: ADD failed"),
        ("COPY ignored /x", "excluded by .dockerignore"),
        ("COPY d /srv/hello", "cannot copy to non-directory: /srv/hello"),
        ("COPY a.txt /bin/busybox/x", "/bin/busybox"),
        ("COPY --chmod=abc a.txt /x", "invalid chmod parameter"),
        ("COPY --chown=nobody-here a.txt /x", "no matching entries in passwd file"),
        ("COPY --from=none /a /x", "none"),
        ("COPY --from=5 /a /x", "Dockerfile:2:1: invalid from flag value 5"),
        (
            "COPY --from=later /a /x\nFROM busybox AS later\nFROM busybox\nCOPY --from=0 /x /x",
            "Dockerfile:2:1: stage later stands below",
        ),
    ],
)
def test_what_cannot_be_copied(node: Node, line: str, words: str) -> None:
    with pytest.raises(Failed) as caught:
        node.build(f"FROM busybox\n{line}\n", {**TREE, "ignored": b"x", ".dockerignore": b"ignored\n"})
    assert words in caught.value.message
    if "RUN" in line:
        assert "RUN" not in caught.value.said, "it can be known before the first step"


def test_links_of_an_image_lead_nowhere_else(node: Node) -> None:
    """Whatever a stage put in the way of COPY, and whatever a context holds: all of it stays inside."""
    files: Files = {
        "a": b"A",
        "out": "/../../../../../../etc/hostname",
        "abs": "/etc/passwd",
        "up": "../../../../../etc/passwd",
    }
    built = node.build(
        "FROM busybox\nRUN rm -r /srv /tmp && ln -s /../../../../../escape /srv && ln -s ../../../../tmpx /tmp\n"
        "COPY a /srv/\nCOPY a /tmp/x\n",
        files,
    ).files()
    assert built["escape/a"].content == "A"
    assert built["tmpx/x"].content == "A"
    assert not Path("/escape").exists()
    assert not Path("/tmpx").exists()
    for name in ("out", "abs", "up"):
        with pytest.raises(Failed, match="file not found"):
            node.build(f"FROM busybox\nCOPY {name} /x\n", files)
        with pytest.raises(Failed, match="no such file"):
            node.build(f"FROM busybox\nRUN --mount=source={name},target=/m cat /m\n", files)


# --- ADD -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, __import__("bz2").compress, __import__("lzma").compress])
def test_add_unpacks_archives(node: Node, pack: Any) -> None:
    inner = pack(tar_of({"i": None, "i/x": b"X", "l": "i/x"}, mode=0o700))
    files = {"t": inner, "plain": b"no archive"}
    built = node.build(
        "FROM busybox\nADD t /x/\nADD --chown=5:6 t /y\nADD --unpack=false t /z/\nADD plain /p\nCOPY t /c\n", files
    ).files()
    assert built["x/i/x"] == Seen("f", 0o700, (0, 0), "X")
    assert built["x/l"].content == "i/x"
    assert built["y/i/x"].owner == (5, 6)
    assert built["p"].content == "no archive"
    assert "z/t" in built
    assert built["c"].kind == "f"


def test_an_archive_that_leaves_its_folder_is_refused(node: Node) -> None:
    for evil in (tar_of({"../../x": b"x"}), tar_of({"l": "/etc", "l/../../x": b"x"})):
        with pytest.raises(Failed, match="leaves its root"):
            node.build("FROM busybox\nADD t /x/\n", {"t": evil})


# --- configuration -------------------------------------------------------------------------------------------------


def test_configuration(node: Node) -> None:
    built = node.build(
        'FROM busybox\nMAINTAINER me\nENV A=1 B="two words" C=$A\nENV A=2 D=$A\nENV E the rest of it\n'
        'LABEL a=b "c d"="e f"\nLABEL a=g\nEXPOSE 80 443/udp 8000-8002 $A\nVOLUME /data ["no"]\nVOLUME ["/v 1"]\n'
        'USER app:audio\nWORKDIR /w\nSTOPSIGNAL SIGQUIT\nSHELL ["/bin/sh", "-ec"]\nONBUILD RUN echo x > /onbuild\n'
        "HEALTHCHECK --interval=1m30s --timeout=5s --start-period=2s --start-interval=1s --retries=7 CMD test -e /ok\n"
        'ENTRYPOINT ["/e", "x"]\nCMD c d\n'
    )
    config = built.document()["config"]
    assert config == {
        "Cmd": ["/bin/sh", "-ec", "c d"],
        "Entrypoint": ["/e", "x"],
        "Env": [f"PATH={DEFAULT_PATH}", "A=2", "B=two words", "C=", "D=1", "E=the rest of it"],
        "Labels": {"a": "g", "c d": "e f"},
        "ExposedPorts": {"80/tcp": {}, "443/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}, "2/tcp": {}},
        "Volumes": {"/data": {}, "[no]": {}, "/v 1": {}},
        "User": "app:audio",
        "WorkingDir": "/w",
        "StopSignal": "SIGQUIT",
        "Shell": ["/bin/sh", "-ec"],
        "OnBuild": ["RUN echo x > /onbuild"],
        "Healthcheck": {
            "Test": ["CMD-SHELL", "test -e /ok"],
            "Interval": 90 * 10**9,
            "Timeout": 5 * 10**9,
            "StartPeriod": 2 * 10**9,
            "StartInterval": 10**9,
            "Retries": 7,
        },
    }
    assert built.document()["author"] == "me"
    assert built.config["Healthcheck"]["Retries"] == 7
    assert built.config["Shell"] == ["/bin/sh", "-ec"]


def test_onbuild_runs_in_the_next_build(node: Node) -> None:
    name = f"ob{word()}"
    node.build("FROM busybox\nONBUILD COPY a /a\nONBUILD RUN cat /a > /b\nONBUILD ENV X=y\n", t=f"{name}:1")
    built = node.build(f"FROM {name}:1\nRUN cat /b > /c\n", {"a": b"A"})
    assert "# Executing 3 build triggers" in built.said
    assert built.text("c") == "A"
    assert "X=y" in built.config["Env"]
    assert not built.config["OnBuild"]
    assert "Executing" not in node.build(f"FROM {name}:1 AS x\nFROM x\n", {"a": b"A"}).said.partition("Step 2")[2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("RUN --security=insecure mkdir /m && mount -t tmpfs x /m", "security.insecure is not allowed"),
        ("RUN --network=host true", "network.host is not allowed"),
        ("RUN --mount=type=secret,id=none,required=true true", "secret none: not found"),
        ("RUN --mount=type=ssh,required=true true", "ssh: no agent default came with the build"),
    ],
)
def test_an_image_puts_off_no_more_than_its_users_allow(node: Node, line: str, words: str) -> None:
    """What a base image has for ONBUILD is a stranger's: it gets no rights that the build was not given."""
    name = f"ob{word()}"
    node.build(f"FROM busybox\nONBUILD {line}\n", t=f"{name}:1")
    with pytest.raises(Failed, match=f"Dockerfile:1:1: ONBUILD {re.escape(line)}: {words}"):
        node.build(f"FROM {name}:1\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("EXPOSE 0", "invalid containerPort: 0"),
        ("EXPOSE 80/icmp", "80/icmp"),
        ("EXPOSE 70000", "from 1 to 65535"),
        ("STOPSIGNAL SIGNOTHING!", "invalid signal"),
        ('ENV A="${B:?is missing}"', "B: is missing"),
        ('ENV A="b', "double quote"),
        ("WORKDIR ${X", "not closed"),
    ],
)
def test_what_a_configuration_cannot_be(node: Node, line: str, words: str) -> None:
    with pytest.raises(Failed) as caught:
        node.build(f"FROM busybox\n\n{line}\n")
    assert caught.value.message.startswith("Dockerfile:3:1: ")
    assert words in caught.value.message


def test_arguments(node: Node) -> None:
    built = node.build(
        "ARG BASE=none\nARG TAG=latest\nFROM ${BASE}:$TAG AS first\nARG TAG\nARG A=a\nARG B\nARG C=${A}c\nENV B=env\n"
        "RUN echo tag=$TAG a=$A b=$B c=$C base=$BASE p=$HTTP_PROXY t=$TARGETARCH > /1\n"
        "FROM first\nARG TARGETPLATFORM BUILDOS\nRUN echo a=$A $TARGETPLATFORM $BUILDOS > /2\n",
        buildargs={"BASE": "busybox", "A": "given", "B": "given", "HTTP_PROXY": "http://p", "UNUSED": "x"},
    )
    files = built.files()
    assert files["1"].content == "tag=latest a=given b=env c=givenc base= p=http://p t=\n"
    assert files["2"].content.startswith("a=given linux/")
    assert files["2"].content.endswith(" linux\n")
    assert "One or more build-args [UNUSED] were not consumed" in built.said
    assert "http://p" not in json.dumps(built.document())


def test_labels_and_args_that_clients_give(node: Node) -> None:
    built = node.build("FROM busybox\nLABEL a=1 b=1\n", labels={"a": "2", "c": "3"})
    assert built.config["Labels"] == {"a": "2", "b": "1", "c": "3"}


# --- stages --------------------------------------------------------------------------------------------------------


def test_stages_that_nobody_needs_are_not_run(node: Node) -> None:
    text = (
        "FROM busybox AS a\nRUN echo a > /a\nFROM busybox AS broken\nRUN exit 1\nFROM a AS target\nRUN cat /a > /b\n"
        "FROM broken AS last\nRUN true\n"
    )
    built = node.build(text, target="target")
    assert built.text("b") == "a\n"
    assert [line.split(" : ")[0] for line in built.said.splitlines() if line.startswith("Step")] == [
        "Step 1/4",
        "Step 2/4",
        "Step 3/4",
        "Step 4/4",
    ]
    assert node.build(text, target="0").text("a") == "a\n"
    with pytest.raises(Failed, match="failed to reach build target nothing"):
        node.build(text, target="nothing")


def test_stages_run_side_by_side(node: Node) -> None:
    """Each of two waits for the other: one after the other they would never end."""
    name = word()
    one = (
        "RUN --mount=type=cache,id={0},target=/c touch /c/{1}; n=0; until test -e /c/{2}; do n=$((n+1)); "
        "test $n -lt 300 || exit 1; sleep 0.1; done; echo {1} > /{1}"
    )
    built = node.build(
        f"FROM busybox AS a\n{one.format(name, 'a', 'b')}\nFROM busybox AS b\n{one.format(name, 'b', 'a')}\n"
        "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )
    assert set(built.files()) == {"a", "b"}
    steps = [line.split()[1] for line in built.said.splitlines() if line.startswith("Step")]
    assert steps == [f"{n}/7" for n in range(1, 8)], "told in the order of the file"


def test_from_scratch_and_images(node: Node) -> None:
    built = node.build(
        "FROM busybox AS b\nFROM scratch\nCOPY --from=b /bin/busybox /bin/sh\nCOPY --from=busybox /srv/hello /hello\n"
        "RUN echo x > /x\n"
    )
    assert {p for p, s in built.files().items() if s.kind != "d"} == {"bin/sh", "hello", "x"}
    assert built.config["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    with pytest.raises(Failed, match="there is nothing to run"):
        node.build("FROM scratch\nRUN true\n")


def test_further_contexts(node: Node) -> None:
    files: Files = {BUILD_EXTRAS: None, f"{BUILD_EXTRAS}/context-0": None, f"{BUILD_EXTRAS}/context-0/n": b"named", "n": b"own"}
    contexts = {
        "more": f"{BUILD_EXTRAS}/context-0",
        "img": "docker-image://busybox",
        "busybox": "docker-image://busybox:latest",
    }
    built = node.build(
        "FROM img\nCOPY --from=more n /more\nCOPY --from=img /srv/hello /hello\nCOPY n /own\n"
        "RUN --mount=from=more,target=/m cp /m/n /mounted\n",
        files,
        contexts=contexts,
    ).files()
    assert [built[n].content for n in ("more", "hello", "own", "mounted")] == [
        "named",
        "hello from the image\n",
        "own",
        "named",
    ]
    rootfs = node.build("FROM more\n", files, contexts=contexts).files()
    assert {p for p, s in rootfs.items() if s.kind == "f"} == {"n"}
    with pytest.raises(Failed, match="is none"):
        node.build("FROM busybox\nCOPY --from=x a /\n", contexts={"x": "file:///etc"})


@pytest.mark.parametrize("name", ["app:latest", "docker.io/library/app", "app"])
def test_a_context_has_the_names_of_an_image(node: Node, name: str) -> None:
    built = node.build(f"FROM {name}\nCOPY --from={name} /bin/busybox /b\n", contexts={"app": "docker-image://busybox"})
    assert "b" in built.files()


def test_arguments_for_the_builder(node: Node) -> None:
    run = "RUN --mount=type=cache,target=/c echo $TARGETSTAGE $(hostname) $(ls /c) > /o; touch /c/x\n"
    text = f"FROM busybox\nARG TARGETSTAGE\n{run}"
    given = {"BUILDKIT_SANDBOX_HOSTNAME": "builder", "BUILDKIT_CACHE_MOUNT_NS": word()}
    assert node.build(text, buildargs=given).text("o") == "default builder\n"
    assert node.build(text, buildargs=given, nocache="1").text("o") == "default builder x\n"
    assert node.build(text, buildargs=given | {"BUILDKIT_CACHE_MOUNT_NS": word()}, nocache="1").text("o") == "default builder\n"
    with pytest.raises(Failed, match="no other frontend's files"):
        node.build(text, buildargs={"BUILDKIT_SYNTAX": "someone/else"})


def test_the_builders_own_platform(node: Node) -> None:
    node.build("FROM --platform=$BUILDPLATFORM busybox\nRUN true\n")


# --- cache ---------------------------------------------------------------------------------------------------------


def test_the_cache_goes_by_contents_and_modes_and_not_by_times(node: Node) -> None:
    text = f"FROM busybox\nCOPY a /a\nRUN echo {word()} > /r\n"

    def body(content: bytes, mode: int, when: int) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, data in (("Dockerfile", text.encode()), ("a", content)):
                info = tarfile.TarInfo(name)
                info.size, info.mode, info.mtime, info.uid = len(data), mode, when, when % 100
                archive.addfile(info, io.BytesIO(data))
        return out.getvalue()

    first = node.build("", body=body(b"1", 0o644, 1000))
    again = node.build("", body=body(b"1", 0o644, 2000))
    assert (first.hits, again.hits, again.ident) == (0, 2, first.ident)
    assert node.build("", body=body(b"1", 0o755, 1000)).hits == 0
    assert node.build("", body=body(b"2", 0o644, 1000)).hits == 0
    assert node.build("", body=body(b"1", 0o644, 3000)).ident == first.ident


def test_what_a_step_does_not_depend_on_does_not_run_it_again(node: Node) -> None:
    name = word()
    before = node.build(f"FROM busybox\nARG A=1\nLABEL x=1\nRUN echo {name} > /r\nCOPY a /a\n", {"a": b"1"})
    assert before.hits == 0
    assert node.build(f"FROM busybox\nARG A=1\nLABEL x=2\nEXPOSE 80\nRUN echo {name} > /r\nCOPY a /a\n", {"a": b"1"}).hits == 3
    assert node.build(f"FROM busybox\nARG A=2\nLABEL x=1\nRUN echo {name} > /r\nCOPY a /a\n", {"a": b"1"}).hits == 0
    assert node.build(f"FROM busybox\nARG A=1\nRUN echo {name} > /r\nCOPY a /a\n", {"a": b"2"}).hits == 2


def test_a_stage_that_comes_to_the_same_runs_nothing_after_it_again(node: Node) -> None:
    name = word()
    text = (
        "FROM busybox AS b\nCOPY in /in\nRUN cut -c1 /in > /out\nFROM busybox\nCOPY --from=b /out /out\nRUN echo {0} > /{0}\n"
    )
    assert node.build(text.format(name), {"in": b"1a\n"}).hits == 0
    again = node.build(text.format(name), {"in": b"1b\n"})
    assert again.hits == 2


def test_no_cache_and_its_filter(node: Node) -> None:
    text = (
        f"FROM busybox AS a\nRUN head -c 8 /dev/urandom | sha256sum > /a; true {word()}\nFROM a AS b\nRUN cp /a /b\n"
        f"FROM busybox AS c\nRUN echo c > /c\nFROM b\nCOPY --from=c /c /c\n"
    )
    first = node.build(text)
    assert node.build(text).ident == first.ident
    fresh = node.build(text, nocache="1")
    assert fresh.hits == 0
    assert fresh.text("b") != first.text("b")
    assert node.build(text).ident == fresh.ident
    part = node.build(text, nocachefilter=["a"])
    assert part.text("b") != fresh.text("b"), "what came of it is not what the cache has"
    assert part.hits == 1


def test_link_does_not_depend_on_what_is_below(node: Node) -> None:
    name = word()
    node.build(f"FROM busybox\nRUN echo {name} > /1\nCOPY --link a /x/a\n", {"a": name.encode()})
    again = node.build(f"FROM busybox\nRUN echo {name} > /2\nCOPY --link a /x/a\n", {"a": name.encode()})
    assert again.hits == 1
    assert again.text("x/a") == name


def test_source_date_epoch(node: Node) -> None:
    name = word()
    one = node.build(f"FROM busybox\nRUN echo {name} > /x\n", buildargs={"SOURCE_DATE_EPOCH": "1000000000"}, nocache="1")
    assert one.document()["created"] == "2001-09-09T01:46:40.000000Z"
    two = node.build(f"FROM busybox\nRUN echo {name} > /x\n", buildargs={"SOURCE_DATE_EPOCH": "1000000000"}, nocache="1")
    assert one.ident == two.ident


# --- contexts ------------------------------------------------------------------------------------------------------


def test_ignore_files(node: Node) -> None:
    files: Files = {
        "a": b"1",
        "b.md": b"1",
        "keep.md": b"1",
        "d": None,
        "d/x": b"1",
        ".dockerignore": b"*.md\n!keep.md\nd\nDockerfile\n",
    }
    assert set(node.build("FROM scratch\nCOPY . /\n", files).files()) == {"a", "keep.md", ".dockerignore"}
    own = {**files, "Dockerfile.dockerignore": b"*\n!a\n"}
    assert set(node.build("FROM scratch\nCOPY . /\n", own).files()) == {"a"}
    with pytest.raises(Failed, match="pattern 1"):
        node.build("FROM scratch\nCOPY . /\n", {".dockerignore": b"[\n"})


def test_the_context_is_what_it_was_sent_as(node: Node) -> None:
    data = tar_of({"Dockerfile": b"FROM scratch\nCOPY a /\n", "a": b"1"})
    for packed in (data, gzip.compress(data), __import__("bz2").compress(data), __import__("lzma").compress(data)):
        assert set(node.build("", body=packed).files()) == {"a"}
    with pytest.raises(Failed, match="cannot be unpacked"):
        node.build("", body=b"no archive at all" * 100)
    with pytest.raises(Failed, match="no Dockerfile"):
        node.build("", body=tar_of({"a": b"1"}))
    assert node.build("", {"deep/er": b"FROM scratch\nCOPY a /\n", "a": b"1"}, dockerfile="deep/er").files().keys() == {"a"}
    with pytest.raises(Failed, match="no other frontend"):
        node.build("# syntax=example.com/else:1\nFROM busybox\n")
    node.build("# syntax=docker/dockerfile:1.7-labs\nFROM busybox\n")


def test_credentials_for_a_base(node: Node) -> None:
    header = base64.urlsafe_b64encode(b"no json").decode()
    status, said = node.ask("POST", "/build", tar_of({"Dockerfile": b"FROM busybox\n"}), {"X-Registry-Config": header})
    assert status == 400
    assert b"X-Registry-Config" in said


def test_prune_and_usage(node: Node) -> None:
    name = word()
    text = f"FROM busybox\nRUN echo {name} > /x\n"
    node.build(text, t=f"{name}:1")
    rows = json.loads(node.ask("GET", "/system/df?type=build-cache")[1])["BuildCache"]
    assert any(name in row["Description"] and row["Size"] > 0 for row in rows)
    filters = urllib.parse.quote(json.dumps({"until": ["24h"]}))
    assert json.loads(node.ask("POST", f"/build/prune?filters={filters}")[1])["CachesDeleted"] == []
    assert node.build(text).hits == 1
    assert len(json.loads(node.ask("POST", "/build/prune")[1])["CachesDeleted"]) >= 1
    assert node.build(text).hits == 0
    assert json.loads(node.ask("GET", f"/images/{name}:1/json")[1])["Id"]
    node.ask("DELETE", f"/images/{name}:1?force=1")


def test_nothing_is_left_of_builds(node: Node, lab: Pystack) -> None:
    root = Path(lab.environment["PYSTACK_ROOT"])
    before = set((root / "build" / "jobs").iterdir())  # a context of another test may still wait for its build
    node.build("FROM busybox\nRUN --mount=target=/m,rw true\nCOPY . /x\n")
    with pytest.raises(Failed):
        node.build("FROM busybox\nRUN exit 1\n")
    assert set((root / "build" / "jobs").iterdir()) <= before
    assert not list((root / "layers").glob("*.tmp"))
    assert not list((root / "images" / "blobs" / "sha256").glob("*.tmp"))
    mounted = Path(f"/proc/{lab.pid('n1')}/mounts").read_text()
    assert str(root / "build") not in mounted


def test_what_a_dockerfile_says_of_its_command_is_as_dockers(node: Node) -> None:
    """An ENTRYPOINT takes away the CMD of the base, and only that; a base without PATH gets one; archives keep their owners."""
    base = 'FROM busybox AS base\nCMD ["b"]\n'
    assert node.build(base + 'FROM base\nENTRYPOINT ["a"]\n').config["Cmd"] is None
    built = node.build(base + 'FROM base\nENV B=$PATH\nCMD ["c"]\nENTRYPOINT ["a"]\n')
    assert built.config["Cmd"] == ["c"]
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert [one for one in built.config["Env"] if "PATH" in one or one.startswith("B=")] == [f"PATH={path}", f"B={path}"]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, owner in (("one", 11), ("two", 12)):
            info = tarfile.TarInfo(name)
            info.uid = info.gid = owner
            archive.addfile(info)
    built = node.build("FROM busybox\nADD t /x/\nADD --chown=5:6 t /y/\n", {"t": out.getvalue()})
    files = built.files()
    assert (files["x/one"].owner, files["x/two"].owner, files["y/one"].owner) == ((11, 11), (12, 12), (5, 6))


def test_a_node_answers_while_it_builds_a_file_of_thousands_of_lines(node: Node) -> None:
    """None of the steps waits for anything, and each once cost as much as all before it had left in the configuration."""
    lines = "".join(f"LABEL l{number}=x\n" for number in range(3000))
    ended, steps, answers = threading.Event(), threading.Event(), 0

    def ask() -> None:
        nonlocal answers
        while not ended.is_set():
            assert node.ask("GET", "/_ping")[0] == 200
            answers += steps.is_set()

    asking = threading.Thread(target=ask)
    asking.start()
    connection = http.client.HTTPConnection("node")
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(120)
        connection.sock.connect(node.path)
        connection.request("POST", "/build", tar_of({"Dockerfile": f"FROM busybox\n{lines}".encode()}))
        for line in connection.getresponse():
            if b"Step 2/" in line:
                steps.set()
            if b"Step 3001/" in line:
                steps.clear()
        assert b"Successfully built" in line
    finally:
        ended.set()
        asking.join()
        connection.close()
    assert answers > 3
