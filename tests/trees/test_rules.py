"""The rules of the room for foreign trees, over the whole source: who touches foreign files does it there.

Each exception has its reason; one that is not needed any more fails the test.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "agent/trees"
NAMES = {
    "chroot": "a foreign tree as the root directory finds its own libraries, names and programs",
    "setns": "a process in a container's namespaces is at home in its files",
    "extractall": "tarfile's extraction follows links and asks for names",
    "unpack_archive": "the same",
    "copytree": "it follows links that appear meanwhile",
    "getpwuid": "libc loads what nsswitch.conf names",
    "getpwnam": "the same",
    "getgrgid": "the same",
    "getgrnam": "the same",
    "getpwall": "the same",
    "getgrall": "the same",
}
EXCEPTIONS = {
    ("netplugins/linux/netns.py", "setns"): "the network namespace alone: the thread keeps the host's files",
    ("agent/rootless/namespaces.py", "getpwuid"): "before any container: the user's own name, for /etc/subuid",
    ("orchestrator/hostcheck.py", "getpwuid"): "before anything is installed: the user's own name, for /etc/subuid",
    ("agent/api/doors.py", "getgrnam"): "before any container: the group of the node's own socket, from its config.yml",
    ("orchestrator/server/api/guard.py", "getpwuid"): "the server, at home on its host: who is at the other end of its socket",
}
IN_WORKERS = ("pwd", "grp", "locale", "traceback", "socket", "subprocess", "inspect", "linecache", "warnings")
"""What would ask for names or source lines, or start something."""
PARENTS = {"process.py", "workers.py", "fork_server.py"}
"""They run in the agent, and in the process that forks the workers, not in a worker."""


def sources(words: Iterable[str]) -> Iterator[tuple[str, ast.Module]]:
    """The modules in whose text one of *words* is: to read all is faster than to parse them."""
    wanted = re.compile("|".join(words))
    for package in ("agent", "orchestrator", "netplugins"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text()
            if wanted.search(text):
                yield str(path.relative_to(ROOT)), ast.parse(text)


def names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from (alias.name for alias in node.names)


def test_nothing_outside_the_room_does_what_only_it_may() -> None:
    found = {
        (file, name)
        for file, tree in sources(NAMES)
        for name in names(tree)
        if name in NAMES and not file.startswith("agent/trees/")
    }
    assert found == EXCEPTIONS.keys()


def test_the_room_itself_does_none_of_it() -> None:
    room = [(file, tree) for file, tree in sources(NAMES) if file.startswith("agent/trees/")]
    found = {(file, name) for file, tree in room for name in names(tree) if name in NAMES}
    assert found == set()


def test_archives_are_read_in_the_room_alone() -> None:
    """Others may write one, of files that are their own."""
    wrong = []
    for file, tree in sources(("tarfile", "TarFile", "ZipFile")):
        if file.startswith("agent/trees/"):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if isinstance(node.func.value, ast.Name) and (node.func.value.id, node.func.attr) == ("tarfile", "open"):
                modes = [k.value.value for k in node.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)]
                if not modes or not str(modes[0]).startswith("w"):
                    wrong.append(f"{file}:{node.lineno}")
            if node.func.attr in ("TarFile", "ZipFile"):
                wrong.append(f"{file}:{node.lineno}")
    assert wrong == []


def test_workers_import_nothing_late_and_nothing_that_asks_for_names() -> None:
    wrong = []
    for path in sorted(ROOM.glob("*.py")):
        if path.name in PARENTS:
            continue
        tree = ast.parse(path.read_bytes())
        # what may be missing is imported at once too, in a statement around it
        around = (one for node in tree.body if isinstance(node, ast.With) for one in node.body)
        top = {id(node) for node in (*tree.body, *around)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                if id(node) not in top or {m.split(".")[0] for m in modules} & set(IN_WORKERS):
                    wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []
