"""`python -m tests.beside NODE [WORD…]`: run every program (those whose name has one of the words) on the socket NODE, and
tell what differs from what Docker's daemon showed. `python -m tests.beside record REFERENCE [WORD…]` writes that down, of the
daemon (20.10) at the socket REFERENCE. Both need the image busybox of tests/images.py, and nothing else of that name.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.beside import built, containers, execs, images, models, networks, registries, system, volumes
from tests.beside.look import Look

REFERENCE = Path(__file__).with_name("reference.json")
MODULES = (containers, execs, images, networks, volumes, system, built, models, registries)
PROGRAMS = {f"{m.__name__.rpartition('.')[2]}.{p.__name__}": p for m in MODULES for p in m.ALL}


def seen(name: str, socket: str, version: str = "1.41") -> Look:
    look = Look(socket, f"bs{list(PROGRAMS).index(name)}", version)
    try:
        PROGRAMS[name](look)
    except Exception:
        look.seen["!"] = traceback.format_exc(limit=-4)
    finally:
        look.close()
    return look


LACKS = "<nothing>"


def differences(reference: Any, ours: Any, where: str = "") -> list[str]:
    """A field more than the reference has is none."""
    if any(re.search(pattern, where) for pattern in (*MEANT, *OF_THE_MACHINE)):
        return []
    if isinstance(reference, dict) and isinstance(ours, dict):
        return [line for k, v in reference.items() for line in differences(v, ours.get(k, LACKS), f"{where}.{k}")]
    if isinstance(reference, list) and isinstance(ours, list) and len(reference) == len(ours):
        return [
            line for i, (a, b) in enumerate(zip(reference, ours, strict=True)) for line in differences(a, b, f"{where}[{i}]")
        ]
    if reference == 500 and isinstance(ours, int) and 400 <= ours < 500:
        return []  # what the client did wrong is told as such, as later daemons of Docker's do
    return [] if reference == ours else [f"{where}: {reference!r} there, {ours!r} here"]


MEANT = {
    r"\.(MaskedPaths|ReadonlyPaths)\b": "a few more paths are hidden, as by later daemons of Docker's",
    r"\.IPPrefixLen$": "networks are as large as the node's settings say",
    r"\.Runtime$|\.runtimes\b": "the node's own runtime is not called runc everywhere",
    r"\.RepoDigests$": "an image has a digest from the first, as in Docker's containerd store",
    r"\.(ContainersDeleted|NetworksDeleted|CachesDeleted|BuildCache|Warnings|diff idle|prune kept)$": "an empty list, no null",
    r"anonymous\.Labels$|stays\.answers\.Labels$": "anonymous volumes are labelled, as by later daemons of Docker's",
    r"\.init$": "the first process has another name",
    r"looked_into\.stats\b": "pressure is said where the kernel measures it",
    r"containers\.lists\.(since|before)\b": "what docker-py documents of these two, which the daemon passes over",
    r"field_of_host_config\.dns$": "names of containers are known on every network",
    r"field_of_host_config\.extra hosts$": "blanks in /etc/hosts are no tabulators",
    r"\.ipc none$": "/dev/shm is there, and is the container's own",
    r"refused_host_config\.log (compress|fluentd)": "what is no option, and a driver that there is not, are refused at once",
    r"refused_config\.(mac|health|volume|timeout|port)\b": "what can mean nothing is refused, as by later daemons",
    r"\.filter expose": "what a container exposes counts before it runs",
    r"\.NetworkID$": "a container that did not run yet names its networks' IDs",
    r"\.SizeRw$": "0 is a size",
    r"\.bad condition\b": "is refused, as by later daemons of Docker's",
    r"\.put into proc\b": "no file is put into /proc",
    r"\.owner of another$": "copyUIDGID gives files to the user as the container knows them, and not as the host does",
    r"executed\.(no command|no folder|folder as command|no user)": "the runtime's words, and later daemons' status",
    r"executed\.(again|has pid)": "is refused, as by later daemons of Docker's; a command on a terminal has a PID",
    r"GraphDriver\.Data\.(MergedDir|WorkDir)$": "an image is mounted nowhere",
    r"committed\.change STOPSIGNAL": "is an instruction like the others",
    r"committed\.conf\.": "what is said beside the container's configuration does not take the place of all of it",
    r"networks\.created\.bad overlay": "what a swarm has, a node has not: 503",
    r"networks\.created\.bad range": "a range outside of its subnet is refused",
    r"system\.told\.(privileges|pull plugin)": "there are no plug-ins to pull",
    r"without_a_swarm\.join": "a node joins no swarm",
    r"built\.with_each_parameter\.plain: said": "a step that changes no file runs no container",
    r"built\.with_each_parameter\.bad bad stop": "an image may have a signal that its user's machine does not know",
    r"built\.with_each_parameter\.bad run exec none": "127, as by a shell",
    r"(built|models).*other platform": "images of other machines are not taken",
    r"of_each_kind_of_context\.tar: files": "what .dockerignore names is not of the context, whoever sends it",
    r"by_caches\.from both": "of a step the last result is kept",
    r"exec runs$": "a command goes on when its client detaches",
    r"type of an archive": "archives are sent as they are",
    r"the_daemon_as_an_object\.info\[[45]\]": "the node's own programs are called otherwise",
    r"image attributes\.delete": "says which labels the image had",
}
"""Where it may differ from a daemon of 20.10, by place, with why."""
OF_THE_MACHINE = (
    r"[bB]lkio|BlkioWeight|weight device",
    r"field_of_host_config\.(caps|privileged|bind propagation)\b",
    r"executed\.privileged",
)
"""What the kernel has, or root may, where the reference runs."""


def record(reference: str, words: list[str]) -> None:
    """Keep what each program, or each that has one of *words* in its name, sees of the daemon at the socket *reference*."""
    known = json.loads(REFERENCE.read_text()) if words else {}
    for name in (n for n in PROGRAMS if not words or any(w in n for w in words)):
        look = seen(name, reference)
        known[name] = {"seen": look.seen, "words": look.words}
        print(name, len(look.seen), look.seen.get("!", ""), flush=True)
    REFERENCE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def compared(name: str, node: str) -> tuple[list[str], list[str]]:
    """What differs between what was kept of the program *name* and what the daemon at the socket *node* shows; and where it
    says the same in other words."""
    kept = json.loads(REFERENCE.read_text())[name]
    here = seen(name, node)
    lines = differences(kept["seen"], here.seen, name)
    lines += [line for k, v in here.seen.items() if k not in kept["seen"] for line in differences(LACKS, v, f"{name}.{k}")]
    words = [
        f"{label}: {text[:200]!r} there, {here.words[label][:200]!r} here"
        for label, text in kept["words"].items()
        if here.words.get(label, text) != text
    ]
    return lines, words


def main(words: list[str]) -> int:
    if words[0] == "record":
        record(words[1], words[2:])
        return 0
    found = 0
    for name in PROGRAMS:
        if not words[1:] or any(w in name for w in words[1:]):
            lines, otherwise = compared(name, words[0])
            found += len(lines)
            print(
                f"{name}: {len(lines)} differ",
                *(f"  {line[:600]}" for line in lines),
                *(f"  ~ {line}" for line in otherwise),
                sep="\n",
                flush=True,
            )
    print(f"{found} differences")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
