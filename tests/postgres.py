"""An image with Debian's PostgreSQL, made from the files of the package that is installed here; no hub needed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.images import archive, busybox_rootfs, tar_of

PROGRAMS = ("initdb", "postgres", "psql", "pg_ctl", "pg_amcheck", "pg_dump", "pg_isready")
PASSWD = b"root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999:postgres:/data:/bin/sh\n"


def home() -> Path | None:
    """Where the newest PostgreSQL of this host lies; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parents[1] if found else None


def _libraries(program: Path) -> set[str]:
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(/\S+)", said))


def image(path: Path) -> Path:
    """Write the image `postgres` to *path*, as an OCI archive."""
    place = home()
    assert place, "postgresql is not installed"
    files: dict[str, bytes | str | None] = {}
    wanted = {str(place / "bin" / name) for name in PROGRAMS}
    libraries = sorted((place / "lib").glob("*.so"))
    wanted |= {str(lib) for lib in libraries}
    for program in [*(place / "bin" / name for name in PROGRAMS), *libraries]:
        wanted |= _libraries(program)
    share = Path("/usr/share/postgresql") / place.name
    wanted |= {str(p) for p in share.rglob("*") if p.is_file()}
    for name in sorted(wanted):
        for folder in reversed(Path(name).parents[:-1]):
            files.setdefault(str(folder).lstrip("/"), None)
        files[name.lstrip("/")] = Path(name).read_bytes()
    files["etc/passwd"] = PASSWD
    files["etc/group"] = b"root:x:0:\npostgres:x:999:\n"
    config = {"Cmd": ["sh"], "Env": [f"PATH={place}/bin:/bin:/usr/bin", "PGUSER=postgres", "PGHOST=/tmp"]}
    return archive(path, [busybox_rootfs(), tar_of(files)], config=config, name="docker.io/library/postgres:latest")
