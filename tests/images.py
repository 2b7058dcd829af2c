"""Images for tests, made here from Debian's busybox-static: root file systems and archives, no hub needed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def tar_of(files: Mapping[str, bytes | str | None], *, mode: int = 0o755) -> bytes:
    """A tar: bytes are a file, text a symbolic link's target, None a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mode = mode
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def busybox_rootfs() -> bytes:
    """A root file system of busybox and its links, with a user `app` (uid 1000) and content in /srv."""
    program = shutil.which("busybox")
    assert program, "busybox-static is not installed: run `make setup`"
    files: dict[str, bytes | str | None] = dict.fromkeys(("bin", "etc", "tmp", "srv", "root", "var", "var/www"))
    files["bin/busybox"] = Path(program).read_bytes()
    names = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    files |= {f"bin/{name}": "busybox" for name in names if name != "busybox"}
    files["etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/srv:/bin/sh\n"
    files["etc/group"] = b"root:x:0:\napp:x:1000:\naudio:x:29:app\n"
    files["srv/hello"] = b"hello from the image\n"
    files["var/www/index.html"] = b"it works\n"
    return tar_of(files)


def with_libraries(programs: Iterable[Path]) -> set[str]:
    """*programs* of this host, and the libraries that they load."""
    found = {str(p) for p in programs}
    for program in sorted(found):
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        found |= set(re.findall(r"(/\S+)", said))
    return found


def files_of(paths: Iterable[str]) -> dict[str, bytes | str | None]:
    """For `tar_of`: the files of this host at *paths*, and their folders."""
    files: dict[str, bytes | str | None] = {}
    for name in sorted(paths):
        for folder in reversed(Path(name).parents[:-1]):
            files.setdefault(str(folder).lstrip("/"), None)
        files[name.lstrip("/")] = Path(name).read_bytes()
    return files


def layout(
    layers: Sequence[bytes],
    *,
    config: Mapping[str, object] | None = None,
    name: str = "",
    compress: str = "gzip",
) -> dict[str, bytes]:
    """An OCI layout as path → content, of uncompressed layer tars."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    packed = []
    for layer in layers:
        if compress == "gzip":
            data, suffix = gzip.compress(layer, 1, mtime=0), "+gzip"
        elif compress == "zstd":
            import zstandard

            data, suffix = zstandard.compress(layer), "+zstd"
        else:
            data, suffix = layer, ""
        packed.append(put(data, f"application/vnd.oci.image.layer.v1.tar{suffix}"))
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config or {"Cmd": ["sh"]}),
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(d).hexdigest() for d in layers]},
        "history": [{"created_by": "tests/images.py"} for _ in layers],
    }
    described = put(json.dumps(document).encode(), "application/vnd.oci.image.config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described,
        "layers": packed,
    }
    entry = put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    if name:
        entry["annotations"] = {"io.containerd.image.name": name}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs}


def archive(path: Path, layers: Sequence[bytes], **options: object) -> Path:
    """Write an OCI archive."""
    path.write_bytes(tar_of(layout(layers, **options)))  # type: ignore[arg-type]
    return path
