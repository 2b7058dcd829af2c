"""Attacks by volumes, by set-user-ID programs that users of the host run, and by logs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from docker.types import LogConfig, Mount

from tests.conftest import eventually
from tests.escape import kit
from tests.escape.ground import LOOKED, SLEEP, Content, Ground, shell, stack_file
from tests.escape.layers import folder, link


def bundle(g: Ground, ident: str) -> Path:
    return g.field.root / "run/containers" / ident


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
    part = f"yes {'x' * 99} | head -c 1000000; sleep 0.05"  # a rotation that is late by so much is late, and no hole
    words = ["sh", "-c", f"for i in $(seq {size // 1_000_000}); do {part}; done; echo the end; sleep 1000"]
    box = g.start(words, image="busybox", log_config=LogConfig(config={"max-size": limit, "max-file": "2"}))

    def written() -> None:
        assert b"the end" in box.logs(tail=1)

    eventually(written, 30)
    kept = sum(path.stat().st_size for path in (g.field.root / "containers" / box.id).glob("log*"))
    if kept > size // 2:
        g.gains.append(f"{kept} bytes of log")
    return f"{kept} bytes of log"


ROWS = (
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
)
