"""Installs and starts an agent over an SSH connection, which also sends all files: the node needs no internet.

<root>/agent/<version>/    a Python environment with the agent and the packages that it needs, `root` being
                           PYSTACK_ROOT of the login's environment, or /var/lib/pystack
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import re
import shlex
import sys
import tarfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from orchestrator import __version__
from orchestrator.errors import RefusedError, UnreachableError

if TYPE_CHECKING:
    import asyncssh

PROBE = r"""
root=${PYSTACK_ROOT:-/var/lib/pystack}
run=/run/pystack; [ -n "$PYSTACK_ROOT" ] && run=$PYSTACK_ROOT/run
PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin
echo "uid=$(id -u)"; echo "hostname=$(hostname | cut -d. -f1)"; echo "root=$root"; echo "run=$run"
echo "machine=$(uname -m)"; echo "os=$(uname -s)"
echo "python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
set -- $SSH_CONNECTION; echo "underlay=$3"
for p in runc conmon nft; do command -v $p >/dev/null || echo "missing=$p"; done
[ -d /run/systemd/system ] && echo systemd=yes
[ -x /usr/lib/pystack/bin/python3 ] && echo packaged=yes
echo "installed=$(cat "$root/agent/current" 2>/dev/null)"
[ -S "$run/docker.sock" ] && echo "answers=$(python3 - "$run/docker.sock" 2>/dev/null <<'EOF'
import http.client, json, socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1])
c = http.client.HTTPConnection("node"); c.sock = s
c.request("GET", "/version"); print(json.load(c.getresponse())["Version"])
EOF
)"
true
"""
PROBE_S = 30
INITS = (Path(sys.prefix) / "bin/tini-static", Path("/usr/bin/tini-static"), Path("/usr/bin/catatonit"))
"""Programs for `init: true`, statically linked; nodes need not have one."""
PACKAGES = ("agent", "netplugins")
NEEDS = ("aiohttp", "cryptography", "h2", "msgspec", "pyroute2", "pyyaml", "uvloop", "zstandard")


class HostProbe(msgspec.Struct, kw_only=True):
    """The result of the probe of a host. *answers* is the version of the agent that runs there, "" if none does; *missing* are
    programs that are not installed. *installed* is the digest of what was sent over last, *packaged* says that a Debian package
    has the agent."""

    uid: int = -1
    hostname: str = ""
    root: str = ""
    run: str = ""
    machine: str = ""
    os: str = ""
    python: str = ""
    underlay: str = ""
    systemd: str = ""
    answers: str = ""
    installed: str = ""
    packaged: str = ""
    missing: list[str] = []


async def install_agent(connection: asyncssh.SSHClientConnection, target: str, *, exactly: bool = False) -> HostProbe:
    """Return when an agent of this version runs on the host; *exactly*: of this very code. Raises RefusedError with everything
    that is missing there, UnreachableError."""
    found = await _probe(connection, target)
    problems = []
    if found.uid != 0:
        problems.append("the login is not root: an agent makes namespaces and mounts")
    if found.os != "Linux":
        problems.append(f"it runs {found.os}, not Linux")
    if found.missing:
        problems.append(f"{', '.join(found.missing)} not installed (Debian: apt install runc conmon nftables)")
    if problems:
        raise RefusedError(f"{target} cannot be a node: {'; '.join(problems)}", 409)
    if found.answers == __version__ and (not exactly or found.packaged or found.installed == _digest()):
        return found
    if found.packaged and found.answers:
        raise RefusedError(
            f"{target} has the agent of a Debian package, version {found.answers}: `apt-get install "
            f"./pystack-agent_{__version__}_$(dpkg --print-architecture).deb` there",
            409,
        )
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    import platform

    if found.python != mine or found.machine != platform.machine():
        raise RefusedError(
            f"{target} has Python {found.python or 'not at all'} on {found.machine}: the agent is sent over for Python "
            f"{mine} on {platform.machine()}; install that Python there, or `pip install 'pystack-orchestrator[node]'` and run "
            "`pystack agent`",
            409,
        )
    await _install(connection, found)
    return found


async def _probe(connection: asyncssh.SSHClientConnection, target: str) -> HostProbe:
    try:
        done = await connection.run("sh", input=PROBE, timeout=PROBE_S)
    except TimeoutError:  # asyncssh's own is one, without a text
        raise UnreachableError(
            f"{target} did not run a command within {PROBE_S} s: see what the profile of its user's shell waits for, with "
            f"`ssh {target} true`"
        ) from None
    fields: dict[str, object] = {}
    missing: list[str] = []
    for line in str(done.stdout or "").splitlines():
        key, sep, value = line.partition("=")
        if key == "missing":
            missing.append(value)
        elif sep and key in HostProbe.__struct_fields__:
            fields[key] = int(value) if key == "uid" else value
    if "uid" not in fields:
        raise UnreachableError(f"{target} runs no commands: {str(done.stderr or '').strip() or 'its output is empty'}")
    return HostProbe(**fields, missing=missing)  # type: ignore[arg-type]


async def _install(connection: asyncssh.SSHClientConnection, found: HostProbe) -> None:
    data = payload()
    home = f"{found.root}/agent/{_digest()}"
    quoted = shlex.quote(home)
    there = await connection.run(f"test -e {quoted}/ready")
    if there.exit_status != 0:
        unpack = f"rm -rf {quoted} && mkdir -p {quoted} && tar -xzf - -C {quoted} && touch {quoted}/ready"
        sent = await connection.run(unpack, input=data, encoding=None)
        if sent.exit_status != 0:
            raise RefusedError(f"the agent cannot be written to {home}: {_text_of(sent.stderr)}", 409)
    done = await connection.run("sh", input=_start_script(found, home))
    if done.exit_status != 0:
        raise RefusedError(f"the agent does not start: {str(done.stdout or '').strip()} {str(done.stderr or '').strip()}", 409)
    root = shlex.quote(found.root)
    # the one before stays, for a downgrade; older ones go
    await connection.run(
        f"cd {root}/agent && before=$(cat current 2>/dev/null); echo {_digest()} > current; "
        f'for d in */; do d=${{d%/}}; [ "$d" = {_digest()} ] || [ "$d" = "$before" ] || rm -rf "$d"; done'
    )


@cache
def _digest() -> str:
    return hashlib.sha256(payload()).hexdigest()[:12]


def _text_of(output: bytes | str | None) -> str:
    return (output.decode(errors="replace") if isinstance(output, bytes) else output or "").strip()


def _start_script(found: HostProbe, home: str) -> str:
    """Stop an agent of another version, and start this one: as a systemd unit where there is systemd."""
    python = f"{shlex.quote(home)}/bin/python3"
    variable = f"PYSTACK_ROOT={shlex.quote(found.root)}" if found.run != "/run/pystack" else ""
    if found.systemd:
        unit = UNIT.format(environment=f"Environment={variable}\n" if variable else "", python=python)
        return (
            f"set -e\ncat > /etc/systemd/system/pystack-agent.service <<'EOF'\n{unit}EOF\n"
            "systemctl daemon-reload\nsystemctl enable pystack-agent.service >/dev/null 2>&1\n"
            "systemctl restart pystack-agent.service\n"
        )
    root = shlex.quote(found.root)
    return (
        "set -e\n"
        f"old=$(cat {root}/agent.pid 2>/dev/null) || old=\n"
        '[ -n "$old" ] && kill "$old" 2>/dev/null || old=\n'
        'while [ -n "$old" ] && kill -0 "$old" 2>/dev/null; do sleep 0.1; done\n'
        f"{variable} setsid {python} -E -s -m agent >>{root}/agent.log 2>&1 </dev/null &\n"
        f"echo $! >{root}/agent.pid\n"
    )


UNIT = """\
[Unit]
Description=pystack agent
After=network-online.target

[Service]
{environment}ExecStart={python} -E -s -m agent
ExecStop=-{python} -E -s -m agent.shutdown --within 60
Restart=always
KillMode=process
TimeoutStopSec=5min
Delegate=yes
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""


@cache
def payload() -> bytes:
    """A gzipped tar of a Python environment with the agent and all that it imports; the same bytes each time."""
    out = io.BytesIO()
    site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _text(tar, "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
        link = tarfile.TarInfo("bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, "/usr/bin/python3"
        tar.addfile(link)
        here = Path(__file__).resolve().parent.parent.parent
        for package in PACKAGES:
            for path in sorted((here / package).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    _file(tar, f"{site}/{path.relative_to(here)}", path)
        for name in sorted(_closure(NEEDS)):
            for entry in sorted(importlib.metadata.files(name) or (), key=str):
                source = Path(str(entry.locate()))
                if ".." not in entry.parts and source.is_file() and source.suffix != ".pyc":
                    _file(tar, f"{site}/{entry}", source)
        if init := next((p for p in INITS if p.is_file()), None):
            _file(tar, "bin/tini-static", init, 0o755)
    return gzip.compress(out.getvalue(), 3, mtime=0)


def _closure(names: tuple[str, ...]) -> set[str]:
    """*names* and all distributions that they need, extras left out."""
    out: set[str] = set()
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in out:
            continue
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # needed by other versions of Python or other systems only
        out.add(name)
        todo += [m.group() for line in wanted if "extra ==" not in line and (m := re.match(r"[A-Za-z0-9._-]+", line))]
    return out


def _text(tar: tarfile.TarFile, name: str, text: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(text)
    tar.addfile(info, io.BytesIO(text.encode()))


def _file(tar: tarfile.TarFile, name: str, path: Path, mode: int = 0) -> None:
    info = tarfile.TarInfo(name)
    info.size = path.stat().st_size
    info.mode = mode or (0o755 if path.suffix == ".so" else 0o644)
    with path.open("rb") as file:
        tar.addfile(info, file)
