"""Dockerfiles built by pystack and by Debian's dockerd: `python -m tests.beside.builds [NAME…]` prints a table of what differs.

Both have the same base, busybox. Each result is compared by its files (kinds, modes, owners, links, contents; of the parts that
the base has not) and by its configuration. What BuildKit alone knows is built through BuildKit's protocol on both sides.
Those that stacks of the shared corpora have in them (`dockerfile_inline`) are built too, with busybox for their bases.
Needs root, dockerd and Debian's client (`apt-get install docker.io`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.builds import Built, Node
from tests.stacks.corpus import CORPORA

DOCKER = "/usr/bin/docker"
"""Debian's, of the daemon's age."""
KIT = "# kit\n"
"""What a Dockerfile begins with that is for BuildKit."""
FILES: dict[str, str] = {
    "a.txt": "a\n",
    "b.txt": "b\n",
    "c.md": "c\n",
    "run.sh": "#!/bin/sh\necho run\n",
    "d/one": "1\n",
    "d/two.txt": "2\n",
    "d/e/three": "3\n",
    "d/e/.hidden": "h\n",
    "ignored/x": "x\n",
    "ignored/kept": "kept\n",
    "sp ace/f g": "space\n",
    "node_modules/m": "m\n",
    ".dockerignore": "node_modules\nignored/*\n!ignored/kept\n**/*.bak\n",
    "d/old.bak": "bak\n",
}
B = "FROM busybox\n"
USER = (
    "RUN mkdir -p /etc /home/own; echo own:x:1234:1234::/home/own:/bin/sh >> /etc/passwd; echo own:x:1234: >> /etc/group; "
    "chown 1234:1234 /home/own\n"
)
CASES: dict[str, str] = {
    "from": B,
    "from stage": "FROM busybox AS x\nRUN echo 1 > /1\nFROM x\nRUN echo 2 > /2\n",
    "from argument": "ARG BASE=busybox\nFROM ${BASE}\nRUN echo 1 > /1\n",
    "from default": "ARG BASE\nFROM ${BASE:-busybox}\nRUN echo 1 > /1\n",
    "scratch": "FROM scratch\nCOPY a.txt /\n",
    "scratch from stage": "FROM busybox AS x\nRUN mkdir -p /o/p && echo 1 > /o/p/1\nFROM scratch\nCOPY --from=x /o /\n",
    "run shell": B + "RUN echo one > /1 && chmod 640 /1\n",
    "run exec": B + 'RUN ["/bin/sh", "-c", "echo one > /1"]\n',
    "run continued": B + "RUN echo one \\\n  # between\n  two \\\n\n  > /1\n",
    "run removes": B + "RUN echo 1 > /1; mkdir /x; echo 2 > /x/2\nRUN rm /1 && rm -r /x\n",
    "run replaces a folder": B + "RUN mkdir /x; echo 2 > /x/2\nRUN rm -r /x; mkdir /x; echo 3 > /x/3\n",
    "run renames": B + "RUN mkdir /x; echo 2 > /x/2\nRUN mv /x /y\n",
    "run links": B + "RUN echo 1 > /1; ln /1 /h; ln -s 1 /s; ln -s /nowhere /n\n",
    "run owners": B + "RUN echo 1 > /1; chown 5:6 /1; mkdir /d; chown 7 /d; chmod 1777 /d\n",
    "run special modes": B + "RUN echo 1 > /1; chmod 4755 /1; mkdir /g; chmod 2775 /g\n",
    "run fifo": B + "RUN mkfifo /f\n",
    "run mode of a folder of the base": B + "RUN chmod 700 /tmp\n",
    "run touches /etc": B + "RUN echo x > /etc/x; echo y >> /etc/passwd\n",
    "run user": B + USER + "USER own\nRUN echo 1 > /home/own/1\n",
    "run empty": B + "RUN true\nRUN echo 1 > /1\n",
    "run environment": B + "ENV A=1 B='two words'\nRUN echo \"$A $B\" > /1\n",
    "run in workdir": B + "WORKDIR /w\nRUN pwd > 1\n",
    "run in its shell": B + 'SHELL ["/bin/sh", "-ec"]\nRUN echo 1 > /1\n',
    "arg": B + "ARG A=1\nRUN echo $A > /1\n",
    "arg in words": B + "ARG A=/x\nCOPY a.txt $A/\nWORKDIR ${A}/y\n",
    "arg of the head": "ARG A=1\nFROM busybox\nARG A\nRUN echo $A > /1\n",
    "arg behind env": B + "ARG A=1\nENV A=2\nRUN echo $A > /1\n",
    "arg of env": B + "ENV X=1\nARG A=$X-2\nRUN echo $A > /1\n",
    "env old form": B + "ENV A one two\n",
    "env several": B + 'ENV A=1 B="x y" C=d\\ e D=$PATH\n',
    "env expands": B + "ENV A=1\nENV A=2 B=$A\nENV C=${A:+x} D=${N:-y} E=\\$A\n",
    "env path": B + "ENV PATH=/x:$PATH\n",
    "label": B + 'LABEL a=1 "b c"="d e" f="g \\\n h"\n',
    "label twice": B + "LABEL a=1\nLABEL a=2\n",
    "maintainer": B + "MAINTAINER me <me@example.com>\n",
    "expose": B + "EXPOSE 80 443/udp 8000-8002/tcp\n",
    "cmd shell": B + "CMD echo $A\n",
    "cmd exec": B + 'CMD ["a", "b"]\n',
    "entrypoint shell": B + "ENTRYPOINT exec top\n",
    "entrypoint exec": B + 'ENTRYPOINT ["a"]\nCMD ["b"]\n',
    "entrypoint drops cmd": 'FROM busybox AS x\nCMD ["b"]\nFROM x\nENTRYPOINT ["a"]\n',
    "cmd with a shell": B + 'SHELL ["/bin/ash", "-c"]\nCMD a b\n',
    "user": B + "USER 5:6\n",
    "volume": B + 'VOLUME /a /b\nVOLUME ["/c d"]\n',
    "volume with content": B + "RUN mkdir /v; echo 1 > /v/1\nVOLUME /v\n",
    "workdir relative": B + "WORKDIR /a\nWORKDIR b\nWORKDIR ../c\n",
    "workdir of a user": B + "USER 5\nWORKDIR /w\n",
    "workdir expands": B + "ENV A=/x\nWORKDIR $A/y\n",
    "stopsignal": B + "STOPSIGNAL SIGUSR1\n",
    "stopsignal number": B + "STOPSIGNAL 9\n",
    "healthcheck": B + "HEALTHCHECK --interval=5s --timeout=3s --start-period=1m --retries=4 CMD echo ok\n",
    "healthcheck exec": B + 'HEALTHCHECK CMD ["a", "b"]\n',
    "healthcheck none": B + "HEALTHCHECK NONE\n",
    "shell": B + 'SHELL ["/bin/sh", "-xc"]\n',
    "onbuild": B + "ONBUILD RUN echo 1 > /1\nONBUILD COPY a.txt /x/\n",
    "copy file": B + "COPY a.txt /x\n",
    "copy into a folder": B + "COPY a.txt b.txt /x/\n",
    "copy pattern": B + "COPY *.txt /x/\n",
    "copy one character": B + "COPY ?.md [ab].txt /x/\n",
    "copy folder": B + "COPY d /x\n",
    "copy folder into one": B + "COPY d /x/\n",
    "copy all": B + "COPY . /x\n",
    "copy over": B + "RUN mkdir -p /x/e; echo old > /x/one; echo stays > /x/stays\nCOPY d /x\n",
    "copy through a link": B + "RUN mkdir /y; ln -s /y /x\nCOPY a.txt /x/\n",
    "copy relative": B + "WORKDIR /w\nCOPY a.txt .\nCOPY d sub\n",
    "copy quoted": B + 'COPY ["sp ace/f g", "/x y/"]\n',
    "copy chown": B + "COPY --chown=5:6 d /x\n",
    "copy chown by name": B + USER + "COPY --chown=own:own d /x\n",
    "copy chown number alone": B + "COPY --chown=55 a.txt /x\n",
    "copy from stage by number": "FROM busybox\nRUN echo 1 > /1; chown 3:4 /1\nFROM busybox\nCOPY --from=0 /1 /x\n",
    "copy from stage a folder": "FROM busybox AS s\nRUN mkdir -p /o/p; echo 1 > /o/p/1; ln -s p /o/l\n"
    "FROM busybox\nCOPY --from=s /o /x\n",
    "copy from image": "FROM busybox\nCOPY --from=busybox /bin/sh /x/sh\n",
    "copy keeps modes": B + "COPY run.sh /x\nRUN /x > /out\n",
    "add file": B + "ADD a.txt /x/\n",
    "add archive": B + "ADD archive.tar /x/\n",
    "add compressed": B + "ADD archive.tar.gz /x/\n",
    "add chown": B + "ADD --chown=5:6 d /x\n",
    "copy archive": B + "COPY archive.tar /x/\n",
    "escape": "# escape=`\nFROM busybox\nRUN echo one `\n two > /1\n",
    "lower case": 'from busybox\nrun echo 1 > /1\ncmd ["x"]\n',
    "parts of a target": "FROM busybox AS a\nRUN echo a > /a\nFROM busybox AS b\nRUN false\nFROM a\n",
    "kit mount cache": KIT + B + "RUN --mount=type=cache,target=/c echo 1 > /c/1 && echo 2 > /2\n",
    "kit mount bind": KIT + B + "RUN --mount=type=bind,source=d,target=/d cp /d/one /1\n",
    "kit mount bind from": KIT
    + "FROM busybox AS s\nRUN echo 1 > /s1\nFROM busybox\nRUN --mount=from=s,source=/s1,target=/t cat /t > /1\n",
    "kit mount tmpfs": KIT + B + "RUN --mount=type=tmpfs,target=/t echo 1 > /t/1 && echo 2 > /2\n",
    "kit chmod": KIT + B + "COPY --chmod=604 a.txt /x\n",
    "kit platform arguments": KIT
    + "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETOS TARGETARCH\nRUN echo $TARGETOS $TARGETARCH > /1\n",
    "kit copy": KIT + B + "COPY --chown=5:6 d /x\nCOPY *.txt /y/\nWORKDIR /z\n",
    "kit stages": KIT + "FROM busybox AS a\nRUN echo a > /a\nFROM busybox AS b\nRUN false\nFROM busybox\nCOPY --from=a /a /b\n",
}
FIELDS = (
    "Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "Labels", "StopSignal", "Healthcheck", "Shell",
    "OnBuild",
)  # fmt: skip
MEANT: dict[str, str] = {
    "kit mount cache": "no mount point comes into an image here",
    "kit mount bind": "no mount point comes into an image here",
    "kit mount tmpfs": "no mount point comes into an image here",
    "scratch": "WorkingDir is / as BuildKit has it",
    "scratch from stage": "WorkingDir is / as BuildKit has it",
    "parts of a target": "stages that nobody needs are not run, as BuildKit has it",
    "workdir of a user": "the folder is the user's, as BuildKit makes it",
}
"""Cases that differ for a reason."""
OWN = {
    "dev",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/mtab",
    "proc",
    "sys",
    ".dockerenv",
}
"""Mount points, which one daemon or the other leaves in what RUN wrote."""


def context(folder: Path) -> None:
    """The files that all cases are built from."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755 if name.endswith(".sh") else 0o644)
    subprocess.run(["tar", "--owner=11", "--group=12", "-cf", "archive.tar", "d"], cwd=folder, check=True)
    subprocess.run(["tar", "--owner=11", "--group=12", "-czf", "archive.tar.gz", "d"], cwd=folder, check=True)


def inline() -> dict[str, tuple[str, Path]]:
    """The Dockerfiles in stacks of the corpora, and the folders of these stacks."""
    found = {}
    for file in sorted(CORPORA.rglob("*.y*ml")):
        for number, text in enumerate(_inline(yaml.compose(file.read_text(errors="replace")), set()), 1):
            found[f"inline {file.relative_to(CORPORA)} {number}"] = (
                _on_busybox(text.replace("$$", "$").replace("$(date)", "now")),
                file.parent,
            )
    return found


def _inline(node: yaml.Node | None, seen: set[int]) -> Iterator[str]:
    """Those below *node*, each once, also where aliases name it many times."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    for one in node.value:
        key, value = one if isinstance(one, tuple) else (None, one)
        if key and key.value == "dockerfile_inline" and isinstance(value, yaml.ScalarNode):
            yield value.value
        else:
            yield from _inline(value, seen)


def _on_busybox(text: str) -> str:
    stages = {name.lower() for name in re.findall(r"(?im)^from\s.*\sas\s+(\S+)", text)} | {"scratch"}

    def base(found: re.Match[str]) -> str:
        return found[0] if found[2].lower() in stages else f"{found[1]}busybox"

    return re.sub(r"(?im)^(from\s+(?:--\S+\s+)*)(\S+)", base, text)


def built(socket: str, folder: Path, text: str) -> Built:
    """The Dockerfile *text* as the daemon at *socket* builds it in *folder*. Raises RuntimeError with its words."""
    (folder / "Dockerfile").write_text(text)
    tag = f"beside:{uuid.uuid4().hex[:12]}"
    done = subprocess.run(
        [DOCKER, "-H", f"unix://{socket}", "build", "-q", "-t", tag, str(folder)],
        env={**os.environ, "DOCKER_BUILDKIT": "1" if text.startswith(KIT) else "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{done.returncode}: {done.stderr.strip()[-300:]}")
    return Built(Node(socket), tag, "")


def seen(image: Built) -> dict[str, Any]:
    """What of *image* is compared: configuration and files."""
    config = {name: image.config.get(name) or None for name in FIELDS}
    files = {}
    for name, one in image.files().items():
        path = name.removeprefix("./").strip("/")
        if path and path not in OWN:
            files[path] = (one.kind, oct(one.mode & 0o7777), one.owner, one.content)
    return {"config": config, "files": files}


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What *here* differs in from *there*."""
    found = []
    for part in ("config", "files"):
        for name in sorted({*there[part], *here[part]}):
            one, other = there[part].get(name), here[part].get(name)
            if one != other:
                found.append(f"{name}: {str(one)[:120]} there, {str(other)[:120]} here")
    return found


def compared(text: str, beside: Path | None, docker: str, pystack: str) -> list[str]:
    """The differences of what the daemons at the two sockets build of the Dockerfile *text*, with the folder *beside*
    as the context if there is one; their words where only one builds it."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        if beside:
            shutil.copytree(beside, folder, symlinks=True, dirs_exist_ok=True)
        else:
            context(folder)
        there, here = (_tried(socket, folder, text) for socket in (docker, pystack))
    if isinstance(there, dict) and isinstance(here, dict):
        return differences(there, here)
    who = [name for name, one in (("dockerd", there), ("pystack", here)) if isinstance(one, str)]
    return [f"{who[0]} does not build it: {there if who[0] == 'dockerd' else here}"] if len(who) == 1 else []


def _tried(socket: str, folder: Path, text: str) -> dict[str, Any] | str:
    """What is seen of the result, or the words of the refusal."""
    try:
        return seen(built(socket, folder, text))
    except RuntimeError as error:
        return str(error)


def main() -> int:
    """Prints the table; 1 where something differs that is not meant."""
    from bench.environment import docker, environment

    os.chdir(Path(__file__).parents[2])
    cases: dict[str, tuple[str, Path | None]] = {**{name: (text, None) for name, text in CASES.items()}, **inline()}
    names = [name for name in cases if not sys.argv[1:] or name in sys.argv[1:]]
    worse = 0
    with environment() as made, docker(made) as there:
        if not there:
            return 2
        for name in names:
            found = compared(*cases[name], str(made.docker_socket), f"{made.root}/run/docker.sock")
            meant = f"{MEANT[name]}: " if found and name in MEANT else ""
            print(f"| {name} | {meant}{'the same' if not found else '; '.join(found)} |", flush=True)
            worse += bool(found) and name not in MEANT
    print(f"{len(names)} Dockerfiles, {worse} differ")
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
