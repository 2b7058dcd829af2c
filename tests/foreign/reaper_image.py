"""An image of the reaper: this machine's Python with docker-py, and reaper.py."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|site-packages|dist-packages|__pycache__|config-[^/]*)(/|$)|/pydoc_data/"
)
NEEDED = ("docker", "requests", "urllib3", "idna", "certifi", "charset_normalizer")


def libraries(*programs: Path) -> set[Path]:
    """What the programs are linked with, by absolute path."""
    found = set()
    for program in programs:
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        found |= {Path(p) for p in re.findall(r"(/\S+) \(0x", said)}
    return found


def rootfs(packages: Path) -> bytes:
    """A tar of an interpreter at its own place, with the client library that lies in the folder *packages*."""
    out = io.BytesIO()
    interpreter = Path(sys.executable).resolve()
    stdlib = Path(sysconfig.get_path("stdlib"))
    # glibc opens libgcc_s by itself where a thread ends
    programs = {interpreter, *Path("/lib").glob("*-linux-gnu/libgcc_s.so.1")}
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in sorted(programs | libraries(interpreter, *stdlib.glob("lib-dynload/*.so"))):
            archive.add(path.resolve(), str(path).lstrip("/"))
        archive.add(stdlib, str(stdlib).lstrip("/"), filter=lambda i: None if LEFT_OUT.search(f"/{i.name}") else i)
        for name in NEEDED:
            archive.add(packages / name, f"reaper/{name}", filter=lambda i: None if LEFT_OUT.search(f"/{i.name}") else i)
        archive.add(Path(__file__).with_name("reaper.py"), "reaper/main.py")
        for folder in ("tmp", "etc", "var", "var/run"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
    return out.getvalue()


CONFIG = {
    "Cmd": [str(Path(sys.executable).resolve()), "-S", "/reaper/main.py"],
    "Env": ["PYTHONDONTWRITEBYTECODE=1", "PYTHONWARNINGS=ignore"],
}
