"""Registries that answer: push, pull, login, distribution, builds on their images; one that is open, and one with a password.

Debian's docker-registry runs in the daemon's own network namespace meanwhile, at ports that both daemons take for insecure.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.beside.look import Look, plain, skeleton, tar
from tests.beside.models import class_of_error
from tests.daemons import process_of

OPEN, LOCKED = "127.0.0.1:5701", "127.0.0.1:5702"
GOOD = {"username": "someone", "password": "secret"}
BAD = {"username": "someone", "password": "wrong"}
HTPASSWD = "someone:$2y$05$G21XTJjm0ICgtNZFFSwJeOLJFkGuQgKBDDdvNOfD9AvVrc5p6nfsy\n"
"""The entry of GOOD, by bcrypt."""
LINES = {"stream": True, "decode": True}
READY_S = 30.0


@contextlib.contextmanager
def _running(daemon: str) -> Iterator[None]:
    """The two registries, empty, where the daemon at the socket *daemon* reaches them. Raises TimeoutError."""
    program, pid = shutil.which("docker-registry"), process_of(daemon)
    assert program, "docker-registry is not installed: run `make setup`"
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="registries-") as folder:
        root = Path(folder)
        (root / "htpasswd").write_text(HTPASSWD)
        try:
            for host, auth in ((OPEN, ""), (LOCKED, f"auth: {{htpasswd: {{realm: x, path: {root}/htpasswd}}}}\n")):
                port = host.rpartition(":")[2]
                config = root / f"{port}.yml"
                config.write_text(
                    f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}/{port}}}}}\nhttp: {{addr: '{host}'}}\n"
                    f"log: {{level: error}}\n{auth}"
                )
                command = ["nsenter", "-t", str(pid), "-n", program, "serve", str(config)]
                processes.append(
                    subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
                )
                _listens(processes[-1], int(port))
            yield
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _listens(process: subprocess.Popen[bytes], port: int) -> None:
    """Return once somebody listens on *port* where *process* is. Raises TimeoutError. Source: proc_pid_net(5), tcp."""
    deadline = time.monotonic() + READY_S
    while f":{port:04X} 00000000:0000 0A" not in Path(f"/proc/{process.pid}/net/tcp").read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"no registry listens on port {port}")
        time.sleep(0.02)


def _lines(stream: Iterable[Any]) -> list[str]:
    """What a stream of progress tells, without its bars, the names of layers and sizes, each once."""
    told = set()
    for line in stream:
        if not line.get("progressDetail"):
            known = {k: v for k, v in line.items() if k != "progress"}
            if re.fullmatch(r"[0-9a-f]{12}", str(known.get("id", ""))):
                known["id"] = "<layer>"
            told.add(re.sub(r"(\bsize\W+)\d+", r"\1<size>", json.dumps(plain(known), sort_keys=True), flags=re.I))
    return sorted(told)


def _names(look: Look) -> list[str]:
    return sorted(t for i in look.c.images() for t in i["RepoTags"] or () if t.startswith((OPEN, LOCKED)))


def _made(look: Look, *hosts: str) -> None:
    """Images of layers that nothing has yet, nor has had; they go in the end."""
    for host in hosts:
        for name, tag in (("one", "v1"), ("one", "v2"), ("two", "latest")):
            content = tar({f"{look.prefix}-{name}-{tag}": uuid.uuid4().bytes})
            look.c.import_image_from_data(content, repository=f"{host}/bs/{name}", tag=tag, changes=["LABEL a=b"])
    look.later(_gone, look)


def _gone(look: Look) -> None:
    for name in _names(look):
        look.c.remove_image(name, force=True)


def pushed(look: Look) -> None:
    c = look.c
    with _running(look.socket):
        _made(look, OPEN, LOCKED)
        look.see("one", _lines(c.push(f"{OPEN}/bs/one", "v1", **LINES)))
        look.see("again", _lines(c.push(f"{OPEN}/bs/one", "v1", **LINES)))
        look.see("tag in the name", _lines(c.push(f"{OPEN}/bs/one:v1", **LINES)))
        look.see("all tags", _lines(c.push(f"{OPEN}/bs/one", **LINES)))
        look.see("only latest", _lines(c.push(f"{OPEN}/bs/two", **LINES)))
        look.see("no such tag", _lines(c.push(f"{OPEN}/bs/one", "nosuch", **LINES)))
        look.see("no such repository", _lines(c.push(f"{OPEN}/bs/none", **LINES)))
        look.see("text", type(c.push(f"{OPEN}/bs/one", "v1")).__name__)
        look.see("model", type(look.docker.images.push(f"{OPEN}/bs/one", tag="v1")).__name__)
        for label, login in {"without": None, "wrong": BAD}.items():
            told = list(c.push(f"{LOCKED}/bs/one", "v1", auth_config=login, **LINES))
            look.see(f"locked, {label}", ["error" in line for line in told[-1:]])
        look.see("locked", _lines(c.push(f"{LOCKED}/bs/one", "v1", auth_config=GOOD, **LINES)))
        look.see("locked, all tags", _lines(c.push(f"{LOCKED}/bs/one", auth_config=GOOD, **LINES)))
        address = c._url("/images/{0}/push", f"{OPEN}/bs/one")
        reply = c._post(address, params={"tag": "v1"}, headers={"X-Registry-Auth": "////"})
        look.see("what is no login", [reply.status_code, "error" in reply.text])


def pulled(look: Look) -> None:
    c = look.c
    with _running(look.socket):
        _made(look, OPEN)
        for name in ("one", "two"):
            c.push(f"{OPEN}/bs/{name}")
        _gone(look)
        one = f"{OPEN}/bs/one"
        look.see("one", _lines(c.pull(one, "v1", **LINES)))
        look.see("one again", _lines(c.pull(one, "v1", **LINES)))
        look.see("names", _names(look))
        digest = c.inspect_image(f"{one}:v1")["RepoDigests"][0]
        look.see("digest", plain(digest))
        look.see("tag in the name", _lines(c.pull(f"{one}:v2", **LINES)))
        look.see("all tags", _lines(c.pull(one, all_tags=True, **LINES)))
        look.see("all names", _names(look))
        look.see("model", look.docker.images.pull(f"{OPEN}/bs/two").tags)
        look.see("models", sorted(t for i in look.docker.images.pull(one, all_tags=True) for t in i.tags))
        look.see("by digest", _lines(c.pull(digest, **LINES)))
        look.see("model by digest", look.docker.images.pull(digest).tags)
        look.see("inspected by digest", c.inspect_image(digest)["RepoTags"])
        class_of_error(look, "no such tag", c.pull, one, "nosuch")
        class_of_error(look, "no such repository", c.pull, f"{OPEN}/bs/nosuch", "x")
        class_of_error(look, "no tags at all", c.pull, f"{OPEN}/bs/nosuch", all_tags=True)
        class_of_error(look, "no such tag, as a stream", lambda: list(c.pull(one, "nosuch", **LINES)))
        class_of_error(look, "no such model", look.docker.images.pull, one, "nosuch")
        class_of_error(look, "no such digest", c.pull, f"{one}@sha256:{'0' * 64}")
        look.see("own platform", _lines(c.pull(one, "v1", platform="linux/amd64", **LINES)))
        look.see("removed by digest", sorted(str(sorted(r)) for r in c.remove_image(digest)))
        look.see("names without it", _names(look))
        _gone(look)
        class_of_error(look, "run pulls", look.docker.containers.create, f"{OPEN}/bs/two", "x")
        _gone(look)
        made = look.name()
        class_of_error(look, "run pulls, as a model", look.docker.containers.run, f"{OPEN}/bs/two", "/nosuch", name=made)
        c.remove_container(made, force=True)
        look.see("names of run", _names(look))
        for base in (f"{OPEN}/bs/one:v1", f"{OPEN}/bs/nosuch"):
            text = io.BytesIO(f"FROM {base}\nLABEL x=y\n".encode())
            told = list(c.build(fileobj=text, pull=True, rm=True, tag=f"{OPEN}/bs/built:1", decode=True))
            look.see(f"built on {base}", ["error" in told[-1], _names(look)])


def logged_in(look: Look) -> None:
    c = look.c
    how = {"dockercfg_path": "/nonexistent"}
    with _running(look.socket):
        _made(look, LOCKED)
        class_of_error(look, "pull without", c.pull, f"{LOCKED}/bs/one", "v1")
        class_of_error(look, "wrong", c.login, "someone", "wrong", registry=LOCKED, **how)
        class_of_error(look, "nobody there", c.login, "someone", "secret", registry="127.0.0.1:1", **how)
        class_of_error(look, "good", c.login, "someone", "secret", registry=LOCKED, **how)
        class_of_error(look, "once more", c.login, "someone", "secret", registry=LOCKED, **how)
        class_of_error(look, "anew", c.login, "someone", "secret", registry=LOCKED, reauth=True, **how)
        class_of_error(look, "by address", c.login, "someone", "secret", registry=f"http://{LOCKED}", **how)
        class_of_error(look, "with email", c.login, "someone", "secret", email="a@b", registry=LOCKED, reauth=True, **how)
        class_of_error(look, "where nobody asks", c.login, "someone", "secret", registry=OPEN, **how)
        look.see("push", _lines(c.push(f"{LOCKED}/bs/one", **LINES)))
        _gone(look)
        look.see("pull", _lines(c.pull(f"{LOCKED}/bs/one", all_tags=True, **LINES)))
        class_of_error(look, "pull, wrong", c.pull, f"{LOCKED}/bs/one", "v1", auth_config=BAD)
        look.see("names", _names(look))


def distributed(look: Look) -> None:
    c = look.c
    with _running(look.socket):
        _made(look, OPEN, LOCKED)
        c.push(f"{OPEN}/bs/one")
        c.push(f"{LOCKED}/bs/one", auth_config=GOOD)
        look.see("open", skeleton(c.inspect_distribution(f"{OPEN}/bs/one:v1")))
        look.see("platforms", c.inspect_distribution(f"{OPEN}/bs/one:v1")["Platforms"])
        look.see("locked", skeleton(c.inspect_distribution(f"{LOCKED}/bs/one:v1", auth_config=GOOD)))
        class_of_error(look, "wrong", c.inspect_distribution, f"{LOCKED}/bs/one:v1", auth_config=BAD)
        class_of_error(look, "without", c.inspect_distribution, f"{LOCKED}/bs/one:v1")
        class_of_error(look, "no such tag", c.inspect_distribution, f"{OPEN}/bs/one:nosuch")
        class_of_error(look, "no such repository", c.inspect_distribution, f"{OPEN}/bs/nosuch")
        found = look.docker.images.get_registry_data(f"{OPEN}/bs/one:v1")
        look.see("model", [found.image_name, found.has_platform("linux/amd64"), found.has_platform("linux/arm64"), found.id])
        look.see("pulled", plain(found.pull().tags))
        class_of_error(look, "no model", look.docker.images.get_registry_data, f"{OPEN}/bs/nosuch:v1")


def events(look: Look) -> None:
    c = look.c
    with _running(look.socket):
        _made(look, OPEN)
        begun = time.time()
        c.push(f"{OPEN}/bs/one", "v1")
        c.pull(f"{OPEN}/bs/one", "v1")
        c.pull(c.inspect_image(f"{OPEN}/bs/one:v1")["RepoDigests"][0])
        c.tag(f"{OPEN}/bs/one:v1", f"{OPEN}/bs/three", "t")
        c.remove_image(f"{OPEN}/bs/three:t")
        # to the end of the second, or its events are left out
        told = list(c.events(since=begun, until=time.time() + 1, filters={"type": "image"}, decode=True))
        look.see("fields", sorted({key for event in told for key in event}))
        look.see("actors", [[e["Action"], e["status"], e["Actor"]["ID"], e["id"], e["Actor"]["Attributes"]] for e in told])


ALL = (pushed, pulled, logged_in, distributed, events)
