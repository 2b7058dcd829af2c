"""Where an attack by content takes place: a folder of the host that it must not reach, and an account of what it did there."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, DockerException
from docker.models.containers import Container

from tests.escape import kit
from tests.escape.conftest import Field
from tests.images import layout, tar_of

SECRET = "secret of the host"
SLEEP = ["sleep", "1000"]
LOOKED = "looked up below the root by the kernel"


@dataclass
class Ground:
    """*outside* holds a file `file` and a folder `folder`; *place* is where the way without a guard works."""

    field: Field
    client: docker.DockerClient
    base: Path
    name: str = dataclasses.field(default_factory=lambda: f"e{uuid.uuid4().hex[:8]}")
    """Of image, container and volume."""
    gains: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.outside, self.place = self.base / "outside", self.base / "place"
        (self.outside / "folder").mkdir(parents=True)
        self.place.mkdir()
        (self.outside / "file").write_text(SECRET)
        (self.outside / "file").chmod(0o600)
        self.begin()

    def begin(self) -> None:
        """What is outside now is how it should stay."""
        self._before = self._look()

    def _look(self) -> Mapping[str, object]:
        paths = [p for p in (self.outside, *sorted(self.outside.rglob("*"))) if os.path.lexists(p)]
        return {
            str(p.relative_to(self.outside)): (s.st_mode, s.st_uid, s.st_nlink, p.read_bytes() if p.is_file() else "")
            for p, s in ((p, p.lstat()) for p in paths)
        }

    def gained(self) -> str:
        """What changed outside, and what was said to be gained; "" for nothing."""
        after = self._look()
        changed = sorted(k for k in {*after, *self._before} if after.get(k) != self._before.get(k))
        return " ".join([*self.gains, *(f"{name} changed" for name in changed)])

    def take(self, data: bytes | str) -> None:
        """Note it where *data* holds what only the host knows."""
        text = data if isinstance(data, str) else data.decode(errors="replace")
        if SECRET in text or self.field.secret in text:
            self.gains.append("the host's secret was read")

    # by the agent

    def load(self, entries: Mapping[tarfile.TarInfo, bytes] | bytes, config: Mapping[str, object] | None = None) -> str:
        """Load an image whose last layer is of *entries*; what the agent says where it does not."""
        last = entries if isinstance(entries, bytes) else kit.pack(entries)
        data = tar_of(layout([self.field.base, last], config=config, name=f"docker.io/library/{self.name}:latest"))
        return self.send(data)

    def send(self, data: bytes) -> str:
        try:
            self.client.images.load(data)
        except DockerException as error:
            return str(error)
        return ""

    def run(self, command: Sequence[str] | None = None, *, image: str = "", **options: object) -> str:
        """What a container prints, or what the agent says where it does not start one."""
        try:
            return str(
                self.client.containers.run(image or self.name, command, name=self.name, stop_signal="KILL", **options), "utf-8"
            )
        except DockerException as error:
            return str(error)
        finally:
            self.remove()

    def start(self, command: Sequence[str], *, image: str = "attacker", **options: object) -> Container:
        return self.client.containers.run(image, command, name=self.name, detach=True, stop_signal="KILL", **options)

    def copy_in(self, container: Container, path: str, data: bytes) -> str:
        try:
            container.put_archive(path, data)
        except APIError as error:
            return str(error)
        return ""

    def copy_out(self, container: Container, path: str) -> str:
        try:
            stream, _ = container.get_archive(path)
            data = b"".join(stream)
        except APIError as error:
            return str(error)
        self.take(data)
        return ""

    def remove(self) -> None:
        with suppress(APIError):
            self.client.containers.get(self.name).remove(force=True, v=True)

    def clean(self) -> None:
        self.remove()
        for image in self.client.images.list():
            if any(tag.startswith(f"{self.name}:") for tag in image.tags):
                self.client.images.remove(image.tags[0], force=True)
        with suppress(APIError):
            self.client.volumes.get(self.name).remove(force=True)

    # by ways that have no guard

    def unpack(self, entries: Mapping[tarfile.TarInfo, bytes] | bytes) -> None:
        """As a program does that trusts an archive."""
        data = entries if isinstance(entries, bytes) else kit.pack(entries)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive, suppress(OSError):
            for member in archive:
                archive.extract(member, self.place, filter="fully_trusted")

    def whiteouts(self, entries: Mapping[tarfile.TarInfo, bytes]) -> None:
        """The same by a program that takes whiteouts at their word."""
        for info, content in entries.items():
            folder, name = os.path.split(self.place / info.name)
            if name == ".wh..wh..opq":
                for path in Path(folder).iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif name.startswith(".wh."):
                path = Path(folder) / name.removeprefix(".wh.")
                with suppress(OSError):  # it takes the ground away that it stands on
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            else:
                self.unpack(kit.pack({info: content}))


Attack = Callable[[Ground], str | None]


@dataclass(frozen=True)
class Content:
    """An attack by what an image, an archive, a volume, a stack file or a repository holds. *attack* goes through pystack and
    returns what it said, *twin* the same way without the guard."""

    name: str
    what: str
    guard: str
    off: str
    attack: Callable[[Ground], str | None]
    twin: Callable[[Ground], object]
    says: str = ""
    """A part of what is said, "" where the content is taken, and harmless."""

    @property
    def runtime(self) -> bool:
        """Whether a runtime has a part in holding it, so that each of them must be tried."""
        return self.name.startswith(("root_", "config_", "runtime_"))


def shell(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def stack_file(g: Ground, text: str, *words: str) -> str:
    """What pystack says to *words* about a stack file of this text."""
    (g.place / "stack.yml").write_text(text)
    done = g.field.pystack("-f", str(g.place / "stack.yml"), *words, check=False)
    g.take(done.stdout + done.stderr)
    return done.stdout + done.stderr
