"""The proxy's image, made of Debian's package `caddy`: the program, the libraries that it is linked with, and nothing else.

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
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from orchestrator.errors import PystackError

REPOSITORY = "pystack/ingress"
_PROGRAM = "usr/bin/caddy"
_LIBRARY = re.compile(r"(?:=>\s+|^\s*)(/\S+)\s+\(0x", re.MULTILINE)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Package(NamedTuple):
    """*program* is Caddy itself, *version* that of its package."""

    program: Path
    version: str


def _run(*command: str, cwd: str | None = None) -> str:
    """What *command* writes. Raises PystackError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    except OSError as error:
        raise PystackError(f"{command[0]}: {error.strerror}: the proxy's image is made of Debian's package caddy") from None
    if done.returncode:
        raise PystackError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def find(folder: Path, given: str = "") -> Package:
    """The package file *given*, what is installed here, or what apt fetches; *folder* is where it is unpacked.

    Raises PystackError."""
    file = given
    if not given:
        try:
            version = _run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "caddy")
        except PystackError:
            version = ""
        if version.startswith("installed "):
            return Package(Path("/") / _PROGRAM, version.partition(" ")[2])
        try:
            _run("apt-get", "download", "-qq", "caddy", cwd=str(folder))
        except PystackError as error:
            raise PystackError(f"{error}\nwithout apt's archives, name the package's file: --package caddy.deb") from None
        file = str(next(folder.glob("caddy_*.deb")))
    version = _run("dpkg-deb", "-f", file, "Version").strip()
    if _run("dpkg-deb", "-f", file, "Package").strip() != "caddy":
        raise PystackError(f"{file} is not Debian's package caddy")
    _run("dpkg-deb", "-x", file, str(folder))
    return Package(folder / _PROGRAM, version)


def name_of(package: Package) -> str:
    """What the image of *package* is called."""
    return f"{REPOSITORY}:{re.sub(r'[^A-Za-z0-9_.-]', '-', package.version)}"


def archive(package: Package, start: Mapping[str, object]) -> bytes:
    """The image as a docker-archive; a proxy begins with the configuration *start*. The same package and libraries give the
    same bytes. Raises PystackError."""
    files: dict[str, bytes] = {_PROGRAM: package.program.read_bytes()}
    for library in _LIBRARY.findall(_run("ldd", str(package.program))):
        files[library.lstrip("/")] = Path(library).read_bytes()
    files["etc/caddy/start.json"] = json.dumps(start).encode()
    files["etc/passwd"] = b"root:x:0:0:root:/:/\n"
    layer = _layer(files)
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": ["/" + _PROGRAM], "Labels": {"org.opencontainers.image.version": package.version}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created_by": "pystack ingress up"}],
    }
    described = json.dumps(config).encode()
    name = hashlib.sha256(described).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [name_of(package)], "Layers": ["layer.tar"]}]
    return _tar({"manifest.json": json.dumps(manifest).encode(), name: described, "layer.tar": layer})


def _layer(files: Mapping[str, bytes]) -> bytes:
    folders = {str(p) for name in files for p in Path(name).parents if str(p) != "."} | {"run", "run/caddy", "tmp"}
    return _tar(files, sorted(folders))


def _tar(files: Mapping[str, bytes], folders: list[str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in folders or ():
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def image(start: Mapping[str, object], given: str = "") -> tuple[str, str, bytes]:
    """The image's name, the package's version, and the image as a docker-archive. Raises PystackError."""
    with tempfile.TemporaryDirectory(prefix="pystack-ingress-") as folder:
        package = find(Path(folder), given)
        return name_of(package), package.version, archive(package, start)
