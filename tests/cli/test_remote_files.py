"""Stack files of a real git server and a real registry, published and read again, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import sensitive
from tests.conftest import eventually
from tests.ports import free_port

BASE = "services:\n  b: {image: busybox, labels: {of: base}}\n"
STACK = """\
services:
  web:
    image: busybox
    extends: {file: parts/base.yml, service: b}
    env_file: [conf/a.env]
    volumes: ["./data:/data"]
"""


def answers(port: int) -> None:
    with socket.socket() as one:
        assert one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("docker-registry", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("docker-registry is not installed: run `make setup`")
    root, port = tmp_path_factory.mktemp("registry"), free_port()
    config = root / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}/blobs}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\nlog: {{level: error}}\n"
    )
    with subprocess.Popen([program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: answers(port))
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


class Repository:
    """A repository that `git daemon` serves at *url*."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    def git(self, *words: str) -> str:
        who = {f"GIT_{role}_{key}": "x@y" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["git", *words], cwd=self.folder, env={**os.environ, **who}, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        for name, text in files.items():
            path = self.folder / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-qm", "a change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    root, port = tmp_path / "served", free_port()
    folder = root / "shop.git"
    folder.mkdir(parents=True)
    one = Repository(folder, f"git://127.0.0.1:{port}/shop.git")
    one.git("init", "-q", "-b", "main")
    words = [
        "git",
        "daemon",
        "--reuseaddr",
        "--listen=127.0.0.1",
        f"--port={port}",
        "--export-all",
        f"--base-path={root}",
        str(root),
    ]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: answers(port))
            yield one
        finally:
            process.terminate()


class Here:
    """`pystack` in a folder and with a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYSTACK_ROOT": str(folder / "root")}

    def __call__(self, *words: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def service(self, *words: str, name: str = "web") -> dict[str, object]:
        found = json.loads(self(*words, "config", "--format", "json").stdout)["services"][name]
        assert isinstance(found, dict)
        return found


@pytest.fixture
def here(tmp_path: Path) -> Here:
    folder = tmp_path / "here"
    folder.mkdir()
    return Here(folder)


def write(folder: Path, **more: str) -> None:
    files = {"compose.yaml": STACK, "parts/base.yml": BASE, "conf/a.env": "LEVEL=debug\n", **more}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


@pytest.mark.slow
def test_what_is_published_is_read_elsewhere_as_it_was(here: Here, registry: str, tmp_path: Path) -> None:
    write(here.folder, **{"over.yml": "services: {web: {labels: {of: over}, stop_signal: SIGINT}}"})
    files = ("-f", "compose.yaml", "-f", "over.yml")
    for version in ("1.0", "1.1"):
        name = f"{registry}/team/stack:{version}"
        here(*files, "publish", "-y", "--with-env", "--oci-version", version, name)
        (tmp_path / version).mkdir()
        there = Here(tmp_path / version)
        found = there.service("-f", f"oci://{name}")
        assert (found["labels"], found["stop_signal"]) == ({"of": "over"}, "SIGINT")
        assert found["environment"] == {"LEVEL": "debug"}
        (there.folder / "compose.yaml").write_text(f"include: [oci://{name}]\nservices: {{b: {{image: b}}}}\n")
        assert there.service()["labels"] == {"of": "over"}
        assert there("-f", f"oci://{name}", "config", "--services").stdout == "web\n"
        assert json.loads(there("-f", f"oci://{name}", "config", "--format", "json").stdout)["name"] == "stack"


def test_values_stay_here_unless_they_are_let_go(here: Here, registry: str) -> None:
    write(here.folder)
    said = here("publish", f"{registry}/team/none", code=1).stderr
    assert "compose.yaml:5:16: web reads conf/a.env: values of variables stay here unless you say so" in said
    token = "ghp_" + "a1" * 18
    write(here.folder, **{"conf/a.env": f"TOKEN={token}\n"})
    refused = here("publish", "--with-env", f"{registry}/team/none", code=130, stdin="n\n").stderr
    assert 'GitHub authentication\n"conf/a.env": xxxxxxxxxxxxxxxxxxxx\n' in refused
    assert token not in refused
    asked = here("publish", "--with-env", "--dry-run", f"{registry}/team/none", stdin="y\ny\ny\n").stderr
    assert "bind mounts" in asked
    assert "would be published: compose.yaml, " in asked
    assert "manifest unknown" in here("-f", f"oci://{registry}/team/none", "config", code=1).stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("include: [other.yml]\nservices: {a: {image: a}}", "other.yml: a file that includes one of this host"),
        ("services: {a: {build: .}}", "a: a service with `build:` alone cannot be published"),
    ],
)
def test_what_only_this_host_has_is_not_published(here: Here, registry: str, text: str, said: str) -> None:
    write(here.folder, **{"compose.yaml": text, "other.yml": BASE})
    assert said in here("publish", "-y", f"{registry}/team/none", code=1).stderr


def test_an_image_is_no_stack(here: Here, registry: str) -> None:
    from orchestrator.cli.stack_artifact import Part, upload

    upload(
        f"{registry}/team/evil", [Part("../../evil.yaml", b"services: {}", "extended"), Part("compose.yaml", b"services: {}")]
    )
    said = here("-f", f"oci://{registry}/team/evil", "config", code=1).stderr
    assert "'../../evil.yaml' is not a name of a file beside compose.yaml" in said
    assert not list((here.folder / "cache").rglob("*.yaml"))


@pytest.mark.slow
def test_files_of_a_repository(here: Here, repository: Repository) -> None:
    first = repository.commit(
        compose_yaml=STACK, parts__base_yml=BASE, conf__a_env="LEVEL=one\n", sub__stack_yml="services: {sub: {image: s}}\n"
    )
    repository.commit(conf__a_env="LEVEL=two\n")
    url = repository.url
    found = here.service("-f", url)
    assert found["environment"] == {"LEVEL": "two"}
    source = Path(found["volumes"][0]["source"])  # type: ignore[index]
    assert (source.name, source.parent.name) == ("data", "shop")
    assert here.service("-f", f"{url}#{first}")["environment"] == {"LEVEL": "one"}
    assert here.service("-f", f"{url}#main:sub", name="sub")["image"] == "s"
    (here.folder / "stack.yml").write_text(
        f"include:\n  - path: [{url}#main:sub/stack.yml]\nservices:\n  c:\n    extends: {{file: '{url}#main', service: web}}\n"
    )
    assert here.service(name="c")["environment"] == {"LEVEL": "two"}
    repository.commit(conf__a_env="LEVEL=three\n")
    assert here.service("-f", url)["environment"] == {"LEVEL": "three"}  # a branch is asked for each time
    repository.folder.rename(repository.folder.with_name("gone.git"))
    assert here.service("-f", f"{url}#{first}")["environment"] == {"LEVEL": "one"}  # a commit is not
    assert "git fetch" in here("-f", url, "config", code=1).stderr


def test_what_is_wrong_elsewhere_has_its_place_here(here: Here, repository: Repository) -> None:
    repository.commit(a_txt="no stack\n")
    (here.folder / "stack.yml").write_text(
        f"include:\n  - {repository.url}\n  - {repository.url}#nowhere\n  - https://example.org/x.yml\n"
        f"  - {repository.url}#main:../..\nservices: {{a: {{image: a}}}}\n"
    )
    said = here("config", code=1).stderr
    for line, words in enumerate(
        (
            "no stack file in git://",
            "couldn't find remote ref nowhere",
            "neither a git repository",
            "leads out of the repository",
        ),
        2,
    ):
        assert f"stack.yml:{line}:5: " in said
        assert words in said


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("AWS_ACCESS_KEY_ID=AKIAABCDEFGHIJKLMNOP", ["AWS Client ID"]),
        ('AWS_SECRET_ACCESS_KEY="' + "a/b+" * 10 + '"', ["AWS Secret Key"]),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", ["Private Key"]),
        ("DATABASE_URL=postgres://app:hunter2@db/app", ["Password in a URL"]),
        ("DATABASE_URL=postgres://app:${PASSWORD}@db/app", []),
        ("IMAGE=registry.example.org/team/app@sha256:" + "0" * 64, []),
        ("LEVEL=debug", []),
    ],
)
def test_secrets_are_recognised(text: str, kinds: list[str]) -> None:
    assert list(sensitive.found(text)) == kinds
