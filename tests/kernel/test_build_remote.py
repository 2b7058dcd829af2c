"""What a build fetches: ADD of URLs and of repositories, contexts that lie elsewhere."""

from __future__ import annotations

import hashlib
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builds import Failed, Node
from tests.conftest import Pystack, eventually
from tests.images import tar_of

pytestmark = pytest.mark.kernel
WEB, GIT = 8971, 8972


@pytest.fixture
def node(lab: Pystack) -> Node:
    return Node(f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock")


def serve(lab: Pystack, port: int, *command: str) -> subprocess.Popen[bytes]:
    """*command* on the node itself, when it listens on *port* of its loopback."""
    child = subprocess.Popen(
        ["nsenter", "-t", lab.pid("n1"), "-n", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def listens() -> None:
        done = subprocess.run(["nsenter", "-t", lab.pid("n1"), "-n", "ss", "-ltn"], capture_output=True, text=True, check=True)
        assert f"127.0.0.1:{port} " in done.stdout

    eventually(listens)
    return child


@pytest.fixture
def web(lab: Pystack, tmp_path: Path) -> Iterator[Path]:
    """What lies in this folder is served on the node's loopback."""
    folder = tmp_path / "www"
    folder.mkdir()
    child = serve(lab, WEB, "busybox", "httpd", "-f", "-p", f"127.0.0.1:{WEB}", "-h", str(folder))
    yield folder
    child.kill()
    child.wait()


@pytest.fixture
def repository(lab: Pystack, tmp_path: Path) -> Iterator[Path]:
    """A repository that the node reaches at git://127.0.0.1:GIT/repo, with a branch, a tag and a folder."""
    top = tmp_path / "git"
    work = top / "repo"
    work.mkdir(parents=True)

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=work, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    (work / "Dockerfile").write_text("FROM busybox\nCOPY . /r\n")
    (work / "a").write_text("main")
    (work / "sub").mkdir()
    (work / "sub" / "Dockerfile").write_text("FROM scratch\nCOPY b /\n")
    (work / "sub" / "b").write_text("sub")
    git("add", "-A")
    git("commit", "-qm", "one")
    git("tag", "v1")
    git("checkout", "-qb", "feature/x")
    (work / "a").write_text("feature")
    git("commit", "-qam", "two")
    git("checkout", "-q", "main")
    programs = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    child = serve(
        lab,
        GIT,
        f"{programs}/git-daemon",
        "--reuseaddr",
        "--export-all",
        f"--base-path={top}",
        "--listen=127.0.0.1",
        f"--port={GIT}",
        str(top),
    )
    yield work
    child.kill()
    child.wait()


URL = f"http://127.0.0.1:{WEB}"
REPO = f"git://127.0.0.1:{GIT}/repo"


def test_add_of_a_url(node: Node, web: Path) -> None:
    (web / "file.txt").write_bytes(b"fetched")
    (web / "t.tar").write_bytes(tar_of({"in": b"side"}))
    digest = hashlib.sha256(b"fetched").hexdigest()
    built = node.build(
        f"FROM busybox\nADD {URL}/file.txt /x/\nADD --chmod=644 --chown=5 {URL}/file.txt /y\nADD {URL}/t.tar /t/\n"
        f"ADD --unpack=true {URL}/t.tar /u/\nADD --checksum=sha256:{digest} {URL}/file.txt /z\n"
    ).files()
    assert (built["x/file.txt"].content, built["x/file.txt"].mode) == ("fetched", 0o600)
    assert (built["y"].mode, built["y"].owner) == (0o644, (5, 5))
    assert built["t/t.tar"].kind == "f"
    assert built["u/in"].content == "side"
    assert built["z"].content == "fetched"
    with pytest.raises(Failed, match="Dockerfile:2:1: digest mismatch"):
        node.build(f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {URL}/file.txt /z\n")
    with pytest.raises(Failed, match="the server answers 404"):
        node.build(f"FROM busybox\nADD {URL}/none /z\n")
    with pytest.raises(Failed, match="it is written like sha256"):
        node.build(f"FROM busybox\nADD --checksum=md5:1 {URL}/file.txt /z\n")


def test_add_of_a_url_is_cached_by_what_lies_there(node: Node, web: Path) -> None:
    name = uuid.uuid4().hex
    (web / "file.txt").write_text(name)
    text = f"FROM busybox\nADD {URL}/file.txt /x\n"
    assert [node.build(text).hits for _ in range(2)] == [0, 1]
    (web / "file.txt").write_text(name + "2")
    assert node.build(text).hits == 0


def test_add_of_a_repository(node: Node, repository: Path) -> None:
    built = node.build(
        f"FROM busybox\nADD {REPO}#main /m\nADD {REPO}#feature/x /f\nADD {REPO}#v1:sub /s\n"
        f"ADD --keep-git-dir=true {REPO}#v1 /k\n"
    ).files()
    assert [built[n].content for n in ("m/a", "f/a", "s/b")] == ["main", "feature", "sub"]
    assert "m/.git" not in built
    assert "k/.git/HEAD" in built
    assert "s/a" not in built
    with pytest.raises(Failed, match=r"git fetch: .*none"):
        node.build(f"FROM busybox\nADD {REPO}#none /m\n")
    commit = subprocess.run(
        ["git", "rev-parse", "v1"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert node.build(f"FROM busybox\nADD --checksum={commit} {REPO}#v1 /m\n").text("m/a") == "main"
    with pytest.raises(Failed, match="mismatch"):
        node.build(f"FROM busybox\nADD --checksum={commit} {REPO}#feature/x /m\n")


def test_submodules_come_along(node: Node, repository: Path) -> None:
    """Those of submodules too, whose address may be relative; and nothing of git's own stays where nobody asked for it."""

    def git(work: Path, *words: str) -> None:
        command = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always", *words)
        subprocess.run(command, cwd=work, check=True, capture_output=True)

    for name, below in (("inner", ""), ("outer", "inner")):
        work = repository.parent / name
        work.mkdir()
        git(work, "init", "-q", "-b", "main")
        (work / "file").write_text(name)
        if below:
            git(work, "submodule", "add", "-q", str(repository.parent / below), "deep")
            git(work, "config", "-f", ".gitmodules", "submodule.deep.url", f"../{below}")
        git(work, "add", "-A")
        git(work, "commit", "-qm", name)
    git(repository, "submodule", "add", "-q", str(repository.parent / "outer"), "mod")
    git(repository, "config", "-f", ".gitmodules", "submodule.mod.url", f"git://127.0.0.1:{GIT}/outer")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "with modules")
    built = node.build("", body=b"", remote=REPO).files()
    assert (built["r/mod/file"].content, built["r/mod/deep/file"].content) == ("outer", "inner")
    assert not [path for path in built if path.endswith(".git")]
    kept = node.build("", body=b"", remote=REPO, buildargs={"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1"}).files()
    assert "r/.git/HEAD" in kept
    commit = subprocess.run(
        ["git", "rev-parse", "v1"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert node.build(f"FROM scratch\nADD {REPO}#{commit} /\n").text("a") == "main"
    git(repository, "config", "-f", ".gitmodules", "submodule.mod.url", "file:///etc")
    git(repository, "commit", "-qam", "to the host")
    with pytest.raises(Failed, match=r"git submodule: .*transport 'file' not allowed"):
        node.build("", body=b"", remote=REPO)


def test_contexts_that_lie_elsewhere(node: Node, repository: Path, web: Path) -> None:
    assert node.build("", body=b"", remote=REPO).text("r/a") == "main"
    assert node.build("", body=b"", remote=f"{REPO}#feature/x").text("r/a") == "feature"
    assert node.build("", body=b"", remote=f"{REPO}#:sub").text("b") == "sub"
    assert ".git" not in node.build("", body=b"", remote=REPO).files()
    (web / "c.tar").write_bytes(tar_of({"Dockerfile": b"FROM scratch\nCOPY a /\n", "a": b"tar"}))
    assert node.build("", body=b"", remote=f"{URL}/c.tar").text("a") == "tar"
    (web / "Dockerfile").write_text("FROM busybox\nRUN echo alone > /alone\n")
    assert node.build("", body=b"", remote=f"{URL}/Dockerfile").text("alone") == "alone\n"
    with pytest.raises(Failed, match="has no folder none"):
        node.build("", body=b"", remote=f"{REPO}#:none")
    for bad in ("file:///etc", "/etc", "ext::sh -c id", "-oProxyCommand=x", f"{REPO}#--upload-pack=x", "http://127.0.0.1:1/x"):
        with pytest.raises(Failed):
            node.build("", body=b"", remote=bad)


def test_named_contexts_that_lie_elsewhere(node: Node, repository: Path, web: Path) -> None:
    (web / "c.tar").write_bytes(tar_of({"a": b"tar"}))
    built = node.build(
        "FROM scratch\nCOPY --from=g a /g\nCOPY --from=t a /t\n", contexts={"g": f"{REPO}#feature/x", "t": f"{URL}/c.tar"}
    ).files()
    assert (built["g"].content, built["t"].content) == ("feature", "tar")


def test_a_repository_runs_nothing_here(node: Node, repository: Path) -> None:
    """Links of a repository lead nowhere, and its hooks, filters and modules are files."""

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=repository, check=True, capture_output=True
        )

    mark = Path(f"/tmp/ran-{uuid.uuid4().hex}")
    (repository / "out").symlink_to("/etc")
    (repository / ".gitattributes").write_text("* filter=evil\n")
    (repository / ".gitmodules").write_text(
        f'[submodule "x"]\n\tpath = x\n\turl = ext::touch {mark}\n\tupdate = !touch {mark}\n'
    )
    git("add", "-A")
    git("commit", "-qm", "evil")
    built = node.build(f"FROM scratch\nADD {REPO} /m\n").files()
    assert built["m/out"].kind == "l"
    with pytest.raises(Failed, match=r"is not a folder|has no folder"):
        node.build("", body=b"", remote=f"{REPO}#:out")
    assert not mark.exists()
