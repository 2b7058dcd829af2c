"""What one program sees of a daemon, without what differs from run to run: ids, times, addresses, paths of the host."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
from docker.errors import APIError

IMAGE = "busybox"
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
WORDS = (
    (re.compile(r"\bsha256:[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<short>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "<mac>"),
    (re.compile(r"\b(?:172|192\.168|10)(?:\.\d{1,3}){2,3}(/\d+)?"), "<address>"),
    (re.compile(r"(/[\w.-]+)*/(ref/data|ref/exec|pystack-lab)[\w./<>-]*"), "<path>"),
)


def plain(value: Any) -> Any:
    """*value* as JSON has it, with ids, times and the like as words."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        for pattern, word in WORDS:
            value = pattern.sub(word, value)
        return value
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float) else f"<{type(value).__name__}>"


def skeleton(value: Any) -> Any:
    """Only which fields there are, and of what kind each is."""
    if isinstance(value, dict):
        return {k: skeleton(v) for k, v in value.items()}
    if isinstance(value, list):
        return [skeleton(value[0])] if value else []
    return type(value).__name__


class Look:
    """A client, what was seen by it, and what is to be cleaned away."""

    def __init__(self, socket: str, prefix: str, version: str = "auto") -> None:
        self.socket = socket
        self.docker = docker.DockerClient(base_url=f"unix://{socket}", version=version, timeout=40)
        self.c = self.docker.api
        self.prefix = prefix
        self.seen: dict[str, Any] = {}
        self.words: dict[str, str] = {}
        self._count = 0
        self._undo: list[Callable[[], object]] = []

    def name(self, kind: str = "c") -> str:
        """One that nothing else has, and that looks alike in every run."""
        self._count += 1
        return f"{self.prefix}-{kind}{self._count}"

    def see(self, label: str, value: Any) -> None:
        assert label not in self.seen, label
        self.seen[label] = plain(value)

    def fails(self, label: str, call: Callable[..., Any], *words: Any, **named: Any) -> None:
        """The status of the error, or what it answered where it is none."""
        try:
            found = call(*words, **named)
            if isinstance(found, Iterator):
                found = b"".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in found)
            self.see(label, {"answers": skeleton(found)})
        except APIError as error:
            self.see(label, {"status": error.response.status_code})
            self.words[label] = plain(str(error.explanation))
        except Exception as error:
            self.see(label, {"raises": type(error).__name__})
            self.words[label] = plain(str(error))

    def later(self, call: Callable[..., object], *words: Any, **named: Any) -> None:
        self._undo.append(lambda: call(*words, **named))

    def close(self) -> None:
        for call in reversed(self._undo):
            with contextlib.suppress(APIError):
                call()
        self.docker.close()

    def made(
        self, command: Any = None, *, start: bool = False, image: str = IMAGE, host: dict[str, Any] | None = None, **how: Any
    ) -> str:
        """A container's ID; it goes in the end."""
        how.setdefault("name", self.name())
        if host is not None:
            how["host_config"] = self.c.create_host_config(**host)
        made: str = self.c.create_container(image, command if command is not None else SLEEP, **how)["Id"]
        self.later(self.c.remove_container, made, v=True, force=True)
        if start:
            self.c.start(made)
        return made

    def network(self, **how: Any) -> str:
        name = how.pop("name", "") or self.name("n")
        made: str = self.c.create_network(name, **how)["Id"]
        self.later(self.c.remove_network, made)
        return made

    def volume(self, **how: Any) -> str:
        name = how.pop("name", "") or self.name("v")
        self.c.create_volume(name, **how)
        self.later(self.c.remove_volume, name, force=True)
        return name

    def until(self, label: str, check: Callable[[], bool], within_s: float = 15) -> None:
        deadline = time.monotonic() + within_s
        while not check():
            if time.monotonic() > deadline:
                self.see(label, "never")
                return
            time.sleep(0.05)
        self.see(label, True)


def tar(files: dict[str, bytes], **about: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            if path.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            info.size = len(content)
            for key, value in about.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def members(data: bytes) -> list[Any]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return sorted(
            (m.name, m.type.decode(), oct(m.mode & 0o7777), m.uid, m.gid, m.size, m.linkname) for m in archive.getmembers()
        )


def stat(header: str) -> Any:
    return json.loads(base64.b64decode(header))
