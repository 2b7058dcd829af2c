"""Files into and out of a container's root: `python -m agent.containers.copier stat|get|put ROOT PATH [USERNS]`.

A process of its own, because it changes its root to the container's: no symlink and no name in an archive leads out. Owners are
those of the user namespace USERNS, where there is one.
stat and get print one line of JSON about PATH; get then writes a tar of it, put reads one from stdin and unpacks it in
PATH. A failure is one line `{"error": …, "status": …}`. Source: Docker Engine API v1.43, ContainerArchive.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tarfile

CLONE_NEWUSER = 0x1000_0000
# Go's os.FileMode keeps the kind of a file in bits of its own
_KINDS = {stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24,
          stat.S_IFBLK: 1 << 26, stat.S_IFCHR: (1 << 26) | (1 << 21)}


def describe(path: str) -> dict[str, object]:
    """Docker's path statistics: name, size, mode (of Go), mtime, linkTarget."""
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode) & 0o777 | _KINDS.get(stat.S_IFMT(status.st_mode), 0)
    import datetime

    stamp = datetime.datetime.fromtimestamp(status.st_mtime, datetime.UTC).isoformat().replace("+00:00", "Z")
    return {
        "name": os.path.basename(path.rstrip("/")) or "/", "size": status.st_size, "mode": mode, "mtime": stamp,
        "linkTarget": os.readlink(path) if stat.S_ISLNK(status.st_mode) else "",
    }


def _become_root_in(user: int) -> None:
    """Root of the user namespace that *user* is open on."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(user, CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "the container's user namespace")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def main(verb: str, root: str, path: str, userns: str = "") -> None:
    path = "/" + path.lstrip("/")
    import ctypes
    import datetime
    import grp
    import pwd

    del ctypes, datetime, grp, pwd  # loaded before the root changes
    try:
        user = os.open(userns, os.O_RDONLY | os.O_CLOEXEC) if userns else -1
        os.chroot(root)
        os.chdir("/")
        if userns:
            _become_root_in(user)
        if verb == "put":
            if not os.path.isdir(path):
                missing = not os.path.lexists(path)
                reason = "does not exist in the container" if missing else "is no directory"
                _fail(f"{path} {reason}", 404 if missing else 400)
            with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*") as archive:
                # the container's own root is all that it can reach: names and owners are kept as they come
                archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
                archive.extractall(path, numeric_owner=True)
            print("{}", flush=True)
            return
        print(json.dumps(describe(path)), flush=True)
        if verb == "get":
            with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                archive.add(path, arcname=os.path.basename(path.rstrip("/")) or ".")
    except FileNotFoundError as error:
        _fail(f"{error.filename or path} does not exist in the container", 404)
    except (OSError, tarfile.TarError) as error:
        _fail(str(error), 500)


def _fail(reason: str, status: int) -> None:
    print(json.dumps({"error": reason, "status": status}), flush=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
