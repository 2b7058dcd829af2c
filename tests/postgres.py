"""An image with Debian's PostgreSQL, made from the files of the package that is installed here; no hub needed."""

from __future__ import annotations

from pathlib import Path

from tests.images import archive, busybox_rootfs, files_of, tar_of, with_libraries

PROGRAMS = ("initdb", "postgres", "psql", "pg_ctl", "pg_amcheck", "pg_basebackup", "pg_dump", "pg_isready")
PASSWD = b"root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999:postgres:/data:/bin/sh\n"


def home() -> Path | None:
    """Where the newest PostgreSQL of this host lies; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parents[1] if found else None


def image(path: Path, name: str = "docker.io/library/postgres:latest") -> Path:
    """Write the image *name* to *path*, as an OCI archive."""
    place = home()
    assert place, "postgresql is not installed"
    libraries = sorted((place / "lib").glob("*.so"))
    wanted = with_libraries([*(place / "bin" / name for name in PROGRAMS), *libraries])
    share = Path("/usr/share/postgresql") / place.name
    files = files_of(wanted | {str(p) for p in share.rglob("*") if p.is_file()})
    files |= files_of(with_libraries([Path("/usr/bin/setpriv")]))  # busybox has one that knows no users
    files["etc/passwd"] = PASSWD
    files["etc/group"] = b"root:x:0:\npostgres:x:999:\n"
    config = {"Cmd": ["sh"], "Env": [f"PATH={place}/bin:/bin:/usr/bin", "PGUSER=postgres", "PGHOST=/tmp"]}
    return archive(path, [busybox_rootfs(), tar_of(files)], config=config, name=name)
