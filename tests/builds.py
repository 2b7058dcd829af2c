"""A node's `POST /build`, asked without a client between, and what is in the images that come of it."""

from __future__ import annotations

import http.client
import io
import json
import socket
import tarfile
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.images import tar_of

Files = Mapping[str, bytes | str | None]


class Seen(NamedTuple):
    """A file of an image."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: str


class Failed(AssertionError):  # noqa: N818 - what a test expects is no error of its
    def __init__(self, message: str, code: int, said: str) -> None:
        super().__init__(message)
        self.message, self.code, self.said = message, code, said


class Node:
    def __init__(self, path: str) -> None:
        self.path = path

    def ask(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("node")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(120)
        connection.sock.connect(self.path)
        try:
            connection.request(method, target, body, dict(headers or {}))
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def build(self, text: str, files: Files | None = None, *, body: bytes | None = None, **query: Any) -> Built:
        """Raises Failed with what the stream says last."""
        given = {k: v if isinstance(v, str) else json.dumps(v) for k, v in query.items()}
        data = tar_of({"Dockerfile": text.encode(), **(files or {})}, mode=0o644) if body is None else body
        status, raw = self.ask("POST", f"/build?{urllib.parse.urlencode(given)}", data)
        lines = [json.loads(line) for line in raw.splitlines()]
        said = "".join(line.get("stream", "") for line in lines)
        if status != 200:
            raise Failed(lines[-1]["message"], 0, said)
        if "error" in lines[-1]:
            raise Failed(lines[-1]["error"], lines[-1]["errorDetail"].get("code", 0), said)
        ident = next(line["aux"]["ID"] for line in lines if "aux" in line)
        return Built(self, ident, said)


class Built:
    def __init__(self, node: Node, ident: str, said: str) -> None:
        self.node, self.ident, self.said = node, ident, said
        self.config: dict[str, Any] = json.loads(node.ask("GET", f"/images/{ident}/json")[1])["Config"]

    @property
    def hits(self) -> int:
        return self.said.count("Using cache")

    def document(self) -> dict[str, Any]:
        with self.archive() as archive:
            file = archive.extractfile(f"blobs/sha256/{self.ident[7:]}")
            assert file
            document: dict[str, Any] = json.load(file)
            return document

    def archive(self) -> tarfile.TarFile:
        return tarfile.open(fileobj=io.BytesIO(self.node.ask("GET", f"/images/{self.ident}/get")[1]))

    def files(self) -> dict[str, Seen]:
        """All of the image, its layers one over the other."""
        found: dict[str, Seen] = {}
        with self.archive() as archive:
            file = archive.extractfile("manifest.json")
            assert file
            for name in json.load(file)[0]["Layers"]:
                layer = archive.extractfile(name)
                assert layer
                data = layer.read()
                with tarfile.open(fileobj=io.BytesIO(data)) as inner:
                    for entry in inner:
                        self._apply(found, inner, entry)
        return found

    @staticmethod
    def _apply(found: dict[str, Seen], inner: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        folder, _, base = entry.name.rpartition("/")
        prefix = f"{folder}/" if folder else ""
        if base == ".wh..wh..opq":
            for gone in [p for p in found if p.startswith(prefix)]:
                del found[gone]
            return
        if base.startswith(".wh."):
            for gone in [p for p in found if p == prefix + base[4:] or p.startswith(f"{prefix}{base[4:]}/")]:
                del found[gone]
            return
        kind = "d" if entry.isdir() else "l" if entry.issym() else "f" if entry.isreg() else "h" if entry.islnk() else "o"
        content = entry.linkname
        if entry.isreg():
            file = inner.extractfile(entry)
            assert file
            content = file.read().decode(errors="replace")
        found[entry.name] = Seen(kind, entry.mode, (entry.uid, entry.gid), content)

    def text(self, path: str) -> str:
        return self.files()[path].content
