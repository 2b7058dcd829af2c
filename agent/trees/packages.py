"""Names the packages in an image: `python -m agent.trees.packages ATTRIBUTE LIMITS LAYER…`, the topmost layer first.

ATTRIBUTE is overlayfs' for directories that replace those below. Reads what package managers leave: dpkg's status (and
distroless's status.d), apk's installed, METADATA and PKG-INFO of Python, package.json of npm. What an upper layer deletes or
replaces does not count. The reply is {"packages": [[KIND, NAME, VERSION, ARCHITECTURE, LICENSE, PATH]…], "unread": [PATH…]};
the second are databases that nobody here can read (rpm's).
Source: deb-control(5), dpkg(1); apk-tools, "Apk spec"; Python packaging, "Core metadata specifications"; npm, package.json(5);
Documentation/filesystems/overlayfs.rst of Linux, "whiteouts and opaque directories".
"""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import Iterable, Iterator

from agent.trees import confine, sandbox
from agent.trees.bounds import Bounds
from agent.trees.errors import TreeError
from agent.trees.pack import is_opaque, walk
from agent.trees.tree import Tree

Package = list[str]
"""Kind (deb, apk, pypi, npm), name, version, architecture, license, and the path that says so."""
MOST = 100_000
FILE_BYTES = 64 << 20
WORD = 300
"""Characters of a field that are kept."""
DPKG = re.compile(r"var/lib/dpkg/(status|status\.d/[^/]+)\Z")
APK = re.compile(r"(usr/)?lib/apk/db/installed\Z")
PYTHON = re.compile(r"(?:.*/)?(?:site|dist)-packages/(?:[^/]+\.dist-info/METADATA|[^/]+\.egg-info(?:/PKG-INFO)?)\Z")
NPM = re.compile(r"(?:.*/)?node_modules/(?:@[^/]+/)?[^/@.][^/]*/package\.json\Z")
RPM = re.compile(r"(?:var/lib/rpm|usr/lib/sysimage/rpm)/(?:rpmdb\.sqlite|Packages|Packages\.db)\Z")
_INSTALLED = re.compile(r"install ok installed|hold ok installed")


def fields(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file: `Name: value` lines, those that go on are left out, an empty line ends one."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            if found:
                yield found
            found = {}
        elif not line[0].isspace():
            key, colon, value = line.partition(":")
            if colon:
                found.setdefault(key.strip().lower(), value.strip())
    if found:
        yield found


def dpkg(text: str, path: str) -> Iterator[Package]:
    """The packages of a status file that are installed."""
    for one in fields(text):
        if one.get("package") and (path.endswith("/status") is False or _INSTALLED.match(one.get("status", ""))):
            yield ["deb", one["package"], one.get("version", ""), one.get("architecture", ""), "", path]


def apk(text: str, path: str) -> Iterator[Package]:
    """The packages of apk's database, whose keys are single letters."""
    for paragraph in text.split("\n\n"):
        one = dict(line.split(":", 1) for line in paragraph.splitlines() if line[1:2] == ":")
        if one.get("P"):
            yield ["apk", one["P"], one.get("V", ""), one.get("A", ""), one.get("L", ""), path]


def python(text: str, path: str) -> Iterator[Package]:
    """The package of one METADATA or PKG-INFO: its header is the first paragraph."""
    for one in fields(text):
        if one.get("name"):
            license_ = one.get("license-expression") or one.get("license", "")
            yield ["pypi", one["name"], one.get("version", ""), "", license_, path]
        return


def npm(text: str, path: str) -> Iterator[Package]:
    """The package of one package.json."""
    try:
        one = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("version"), str):
        license_ = one.get("license")
        yield ["npm", one["name"], one["version"], "", license_ if isinstance(license_, str) else "", path]


READERS = ((DPKG, dpkg), (APK, apk), (PYTHON, python), (NPM, npm))


class PackageSearch:
    """What was found in the layers so far, from the top down."""

    def __init__(self, bounds: Bounds, opaque: str) -> None:
        self._opaque = opaque
        self.packages: list[Package] = []
        self.unread: list[str] = []
        self._entries = bounds.entries
        self._seen: set[str] = set()
        self._hidden: set[str] = set()

    def add(self, layer: Tree) -> None:
        """Look through the next *layer* below. Raises TreeError, OSError."""
        hidden: set[str] = set()
        for entry in walk(layer):
            self._entries -= 1
            if self._entries < 0:
                raise TreeError("the image has more files than are allowed (limits.entries)")
            if self._is_hidden(entry.path):
                continue
            if stat.S_ISCHR(entry.status.st_mode) and entry.status.st_rdev == 0:
                hidden.add(entry.path)
            elif stat.S_ISDIR(entry.status.st_mode):
                if is_opaque(entry, self._opaque):
                    hidden.add(entry.path)
            elif stat.S_ISREG(entry.status.st_mode) and entry.path not in self._seen:
                self._seen.add(entry.path)
                self._take(layer, entry.path)
        self._hidden |= hidden

    def _is_hidden(self, path: str) -> bool:
        parts = path.split("/")
        return bool(self._hidden) and any("/".join(parts[: n + 1]) in self._hidden for n in range(len(parts)))

    def _take(self, layer: Tree, path: str) -> None:
        if RPM.match(path):
            self.unread.append(path)
        for pattern, read in READERS:
            if pattern.match(path):
                text = layer.read(path, FILE_BYTES).decode("utf-8", "replace")
                for package in read(text, path):
                    if len(self.packages) >= MOST:
                        raise TreeError(f"the image names more than {MOST} packages")
                    self.packages.append([_plain(word) for word in package])


def _plain(word: str) -> str:
    """Without what a terminal takes for orders, and no longer than WORD."""
    return "".join(c for c in word[:WORD] if c.isprintable())


def search(layers: Iterable[Tree], bounds: Bounds, opaque: str) -> confine.Reply:
    """The reply for *layers*, the topmost first."""
    found = PackageSearch(bounds, opaque)
    for layer in layers:
        found.add(layer)
    return {"packages": sorted(found.packages), "unread": sorted(found.unread)}


def main(opaque: str, limits: str, *layers: str) -> int:
    """The process. Returns its exit status."""
    bounds = Bounds.of(limits)
    try:
        trees = [confine.open_tree(layer, read_only=True, nested=False) for layer in layers]
    except OSError as error:
        return confine.answer({"error": f"the files cannot be reached: {error.strerror}", "status": 500})
    # trusted.overlay.* is read by CAP_SYS_ADMIN of the host's own user namespace alone; what calls are left cannot use it
    noted = opaque.startswith("trusted.")
    capabilities = (*sandbox.READER, "SYS_ADMIN") if noted else sandbox.READER
    return confine.answer(
        confine.run(
            lambda: search([Tree(tree) for tree in trees], bounds, opaque),
            trees,
            calls=sandbox.READ_CALLS,
            capabilities=capabilities,
            user=not noted,
        )
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
