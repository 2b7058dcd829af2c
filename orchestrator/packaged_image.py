"""An image made of a Debian package: the program, the libraries that it is linked with, and the files that are named.

No registry is asked, and no node needs the internet: where the package is not installed here, apt fetches it, or it was given.
Source: Docker image specification v1.2 (docker-archive); dpkg-deb(1), ldd(1).
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from orchestrator.errors import PystackError

_LIBRARY = re.compile(r"(?:=>\s+|^\s*)(/\S+)\s+\(0x", re.MULTILINE)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Package(NamedTuple):
    """The Debian package *name* in *version*; its files are below *root*."""

    name: str
    version: str
    root: Path

    def files(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """The files of the package below *folder* (`usr/share/x`), links followed as far as what they lead to is here."""
        stack = [self.root / folder]
        while stack:
            for path in sorted(stack.pop().iterdir()):
                if path.is_dir():
                    stack.append(path)
                elif path.is_file():
                    yield str(path.relative_to(self.root)), path.read_bytes()


class Recipe(NamedTuple):
    """What is made of a package: an image called *repository* that runs *program*, with *files* besides. *folders* are empty
    ones, by the user and group that have them."""

    repository: str
    program: str
    files: Mapping[str, bytes]
    folders: Mapping[str, int]
    made_by: str


def _run(*command: str, cwd: str | None = None) -> str:
    """What *command* writes. Raises PystackError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    except OSError as error:
        raise PystackError(f"{command[0]}: {error.strerror}: the image is made of a Debian package") from None
    if done.returncode:
        raise PystackError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def find(name: str, folder: Path, given: str = "") -> Package:
    """The package file *given*, what is installed here as *name*, or what apt fetches; *folder* is where it is unpacked.

    Raises PystackError."""
    file = given
    if not given:
        try:
            version = _run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name)
        except PystackError:
            version = ""
        if version.startswith("installed "):
            return Package(name, version.partition(" ")[2], Path("/"))
        try:
            _run("apt-get", "download", "-qq", name, cwd=str(folder))
        except PystackError as error:
            raise PystackError(f"{error}\nwithout apt's archives, name the package's file: --package {name}.deb") from None
        file = str(next(folder.glob(f"{name}_*.deb")))
    version = _run("dpkg-deb", "-f", file, "Version").strip()
    if _run("dpkg-deb", "-f", file, "Package").strip() != name:
        raise PystackError(f"{file} is not Debian's package {name}")
    _run("dpkg-deb", "-x", file, str(folder))
    return Package(name, version, folder)


def name_of(package: Package, repository: str) -> str:
    """What the image *repository* of *package* is called."""
    return f"{repository}:{re.sub(r'[^A-Za-z0-9_.-]', '-', package.version)}"


def archive(package: Package, recipe: Recipe) -> bytes:
    """The image as a docker-archive. The same package, libraries and files give the same bytes. Raises PystackError."""
    program = package.root / recipe.program
    files: dict[str, bytes] = {recipe.program: program.read_bytes(), **recipe.files}
    for library in _LIBRARY.findall(_run("ldd", str(program))):
        files[library.lstrip("/")] = Path(library).read_bytes()
    above = {str(p): 0 for name in (*files, *recipe.folders) for p in Path(name).parents if str(p) != "."}
    layer = _tar(files, {**above, "tmp": 0, **recipe.folders})
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": ["/" + recipe.program], "Labels": {"org.opencontainers.image.version": package.version}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created_by": recipe.made_by}],
    }
    described = json.dumps(config).encode()
    name = hashlib.sha256(described).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [name_of(package, recipe.repository)], "Layers": ["layer.tar"]}]
    return _tar({"manifest.json": json.dumps(manifest).encode(), name: described, "layer.tar": layer}, {})


def _tar(files: Mapping[str, bytes], folders: Mapping[str, int]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder, owner in sorted(folders.items()):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, owner, owner
            tar.addfile(entry)
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()
