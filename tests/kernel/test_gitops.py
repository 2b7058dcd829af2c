"""The cluster follows real git repositories: over a path, over SSH, by webhook; good commits, bad ones, and hostile ones."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pystack, eventually

GOOD = """
services:
  web: {image: busybox, command: [sleep, "10000"], stop_signal: SIGKILL, configs: [text]}
configs: {text: {file: ./text}}
"""
PERSON = ("-c", "user.name=Ann Author", "-c", "user.email=ann@example.org")


class Repository:
    """A bare repository, and a working copy that pushes to it."""

    def __init__(self, pystack: Pystack, folder: Path) -> None:
        self.pystack = pystack
        self.bare = folder / "origin.git"
        self.copy = folder / "copy"
        self.name = f"g{uuid.uuid4().hex[:6]}"
        subprocess.run(["git", "init", "-q", "-b", "main", "--bare", self.bare], check=True)
        subprocess.run(["git", "init", "-q", "-b", "main", self.copy], check=True)
        self.git("remote", "add", "origin", str(self.bare))

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *PERSON, *words], cwd=self.copy, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def push(self, message: str, files: dict[str, str | None], *, force: bool = False) -> str:
        for name, text in files.items():
            path = self.copy / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        self.git("push", "-q", *(["--force"] if force else []), "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def add(self, *options: str, check: bool = True, url: str = "") -> subprocess.CompletedProcess[str]:
        wanted = [] if "--interval" in options else ["--interval", "1h"]
        return self.pystack("gitops", "add", url or str(self.bare), "--name", self.name, *wanted, *options, check=check)

    def sync(self, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.pystack("gitops", "sync", self.name, check=check)

    def row(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.pystack("gitops", "status", self.name, "--format", "json", check=False).stdout)
        return found

    def text(self, service: str = "web", stack: str = "") -> str:
        return self.pystack("exec", "-p", stack or self.name, "-T", service, "cat", "/text").stdout

    def tasks(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.pystack("ps", "-p", self.name, "--format", "json").stdout)
        return rows


@pytest.fixture
def repository(lab: Pystack, tmp_path: Path) -> Iterator[Repository]:
    made = Repository(lab, tmp_path)
    yield made
    lab("gitops", "rm", made.name, check=False)
    for row in json.loads(lab("ls", "--format", "json").stdout):
        if row["stack"].startswith(made.name):
            lab("down", "-p", row["stack"], "-v")


def test_a_commit_becomes_the_cluster_and_the_history_says_whose(repository: Repository) -> None:
    first = repository.push("first light", {"compose.yml": GOOD, "text": "one"})
    said = repository.add().stdout
    assert f"{repository.name}: good {first[:12]} first light" in said
    assert "create task" in said
    assert repository.text() == "one"
    second = repository.push("a second word", {"text": "two"})
    assert "the content of config text changed" in repository.pystack("gitops", "diff", repository.name).stdout
    assert repository.text() == "one", "a diff changes nothing"
    repository.sync()
    assert repository.text() == "two"
    rows = json.loads(repository.pystack("history", "-p", repository.name, "--format", "json").stdout)
    assert rows[-1]["user"] == "Ann Author <ann@example.org>"
    assert rows[-1]["message"] == f"{repository.name} {second[:12]}: a second word"
    before = repository.tasks()
    repository.push("a remark", {"README": "nothing that runs"})
    assert "good" in repository.sync().stdout
    assert repository.tasks() == before


def test_a_stack_mounts_small_files_of_its_repository(repository: Repository) -> None:
    text = (
        "services: {web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, "
        "volumes: ['./greeting:/text', './conf:/conf:ro']}}\n"
    )
    repository.push("with files", {"compose.yml": text, "greeting": "one", "conf/deep/more": "more"})
    repository.add()
    assert repository.text() == "one"
    assert repository.pystack("exec", "-p", repository.name, "-T", "web", "cat", "/conf/deep/more").stdout == "more"
    repository.push("another greeting", {"greeting": "two"})
    repository.sync()
    assert repository.text() == "two"


def test_a_commit_that_is_no_stack_changes_nothing(repository: Repository) -> None:
    repository.push("good", {"compose.yml": GOOD, "text": "one"})
    repository.add()
    before = repository.tasks()
    repository.push("broken", {"compose.yml": "services: {web: {imagee: x, ports: 5}}"})
    failed = repository.sync(check=False)
    assert failed.returncode == 1
    assert "compose.yml:1:18: services.web.imagee: no such key" in failed.stdout
    assert "services.web.ports: must be a list" in failed.stdout
    assert repository.tasks() == before
    repository.push("mended", {"compose.yml": GOOD, "text": "two"})
    repository.sync()
    assert repository.text() == "two"


def test_a_commit_that_does_not_come_up_is_taken_back(repository: Repository) -> None:
    good = repository.push("good", {"compose.yml": GOOD, "text": "one"})
    repository.add()
    crashes = GOOD.replace('[sleep, "10000"]', "[sh, -c, 'echo no luck; exit 9']").replace(
        "services:", ("services:\n  more: {image: busybox, command: [sleep, '10000'], stop_signal: SIGKILL}")
    )
    repository.push("crashes", {"compose.yml": crashes, "text": "two"})
    failed = repository.sync(check=False)
    assert failed.returncode == 1
    assert "exited with 9" in failed.stdout
    assert "no luck" in failed.stdout
    assert f"the cluster is back at commit {good[:12]}" in failed.stdout
    assert repository.text() == "one"
    assert [t["service"] for t in repository.tasks()] == ["web"]
    assert repository.row()["state"] == "rolled back"
    assert repository.row()["good"] == good
    before = repository.tasks()
    repository.sync(check=False)  # it stays so: the same commit is not tried again and again
    assert repository.tasks() == before


def test_a_commit_waits_for_approval(repository: Repository) -> None:
    repository.push("good", {"compose.yml": GOOD, "text": "one"})
    assert "waiting" in repository.add("--approve").stdout
    assert repository.tasks() == []
    repository.pystack("gitops", "approve", repository.name)
    assert repository.text() == "one"
    commit = repository.push("more", {"text": "two"})
    assert "the content of config text changed" in repository.sync().stdout
    assert repository.text() == "one"
    repository.pystack("gitops", "approve", repository.name)
    assert (repository.text(), repository.row()["good"]) == ("two", commit)
    none = repository.pystack("gitops", "approve", repository.name, check=False)
    assert "no commit of" in none.stderr


def test_what_somebody_changed_by_hand_is_put_back_or_told(repository: Repository) -> None:
    repository.push("good", {"compose.yml": GOOD, "text": "one"})
    repository.add("--interval", "1s")
    for drift in ("stop", "down"):
        repository.pystack(drift, "-p", repository.name)
        eventually(lambda: _runs(repository), 20)
    repository.pystack("gitops", "rm", repository.name)
    assert repository.tasks(), "its stacks run on"
    repository.add("--drift", "report")
    repository.pystack("stop", "-p", repository.name)
    assert "was stopped" in repository.sync().stdout
    assert repository.row()["state"] == "drifted"
    assert repository.tasks()[0]["state"] == "exited"


def _runs(repository: Repository) -> None:
    assert [t["state"] for t in repository.tasks()] == ["running"]


def test_stacks_are_found_by_folder_or_listed_with_targets_and_pruned(repository: Repository) -> None:
    name = repository.name
    one = "name: %s\nservices: {web: {image: busybox, command: [sleep, '${TIME:-9}'], stop_signal: SIGKILL}}\n"
    repository.push("two folders", {f"stacks/{n}/stack.yml": one % f"{name}-{n}" for n in ("a", "b")})
    repository.add("--path", "stacks", "--prune", "--target", "prod")
    assert set(repository.row()["stacks"]) == {f"{name}-a", f"{name}-b"}
    repository.push(
        "listed",
        {
            "stacks/b/stack.yml": None,
            "stacks/prod.env": "TIME=10000\n",
            "stacks/pystack.yml": f"stacks:\n- {{file: a/stack.yml, env_file: prod.env, name: {name}-c, targets: [prod]}}\n"
            "- {file: nowhere.yml, targets: [test]}\n",
        },
    )
    repository.sync()
    assert set(repository.row()["stacks"]) == {f"{name}-c"}
    there = {r["stack"] for r in json.loads(repository.pystack("ls", "--format", "json").stdout)}
    assert {f"{name}-a", f"{name}-b"} & there == set()
    seen = repository.pystack("exec", "-p", f"{name}-c", "-T", "web", "cat", "/proc/1/cmdline").stdout
    assert seen == "sleep\x0010000\x00"
    repository.push("bad index", {"stacks/pystack.yml": "stacks: [{file: a/stack.yml, nmae: x}]\n"})
    assert "unknown field `nmae`" in repository.sync(check=False).stdout


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"compose.yml": GOOD.replace("./text", "/etc/shadow")}, "cannot be read"),
        ({"compose.yml": GOOD.replace("./text", "../../../../../etc/shadow")}, "cannot be read"),
        ({"compose.yml": GOOD, "text": "->/etc/shadow"}, "cannot be read"),
        ({"compose.yml": GOOD, "text": "->../../../../../etc/shadow"}, "cannot be read"),
        ({"compose.yml": "include: [/etc/passwd]\n" + GOOD, "text": "x"}, "does not exist"),
        ({"compose.yml": "services: {web: {image: busybox, env_file: ../../etc/environment}}"}, "does not exist"),
        ({"compose.yml": "services: {web: {image: busybox, volumes: ['./data:/data']}}"}, "which no node has: make it smaller"),
        ({"compose.yml": "services: {web: {build: .}}"}, "the server builds no images for a repository"),
        ({"compose.yml": GOOD, "text": "x", ".gitattributes": "*.bin filter=lfs\n"}, "Git LFS"),
        (
            {
                "compose.yml": "a: &a [x, x, x, x, x, x, x, x, x]\n"
                + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9))
                + GOOD
            },
            "",
        ),
        ({"compose.yml": "\x00\x01"}, "compose.yml"),
        ({"other": "x"}, "neither the folder nor the folders in it have a stack file"),
    ],
)
def test_a_hostile_commit_reads_nothing_of_the_server(repository: Repository, files: dict[str, str], why: str) -> None:
    for name, text in files.items():
        if text.startswith("->"):
            (repository.copy / name).symlink_to(text[2:])
    repository.push("hostile", {n: t for n, t in files.items() if not t.startswith("->")})
    failed = repository.add(check=False)
    assert failed.returncode == 1
    assert why in failed.stdout + failed.stderr
    assert "root:" not in failed.stdout + failed.stderr
    assert repository.tasks() == []
    trees = Path(repository.pystack.environment["PYSTACK_ROOT"]) / "gitops" / repository.name
    assert list(trees.glob("tree-*")) == []


def test_a_submodule_or_a_tree_that_is_too_large_is_refused(repository: Repository) -> None:
    repository.push("good", {"compose.yml": GOOD, "text": "one"})
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{repository.git('rev-parse', 'HEAD')},vendored")
    repository.git("commit", "-q", "-m", "a submodule")
    repository.git("push", "-q", "origin", "HEAD:main")
    assert "vendored is a submodule" in repository.add("--max-size", "1m", check=False).stdout
    repository.git("rm", "-q", "--cached", "vendored")
    repository.push("large", {"large": "x" * (2 << 20)})
    assert "have 2 MiB, more than the 1 MiB allowed" in repository.sync(check=False).stdout
    (repository.copy / "large").write_bytes(os.urandom(3 << 20))
    repository.push("does not compress", {})
    assert "is larger than 1 MiB" in repository.sync(check=False).stderr


def test_a_remote_that_is_away_leaves_the_cluster_as_it_is(repository: Repository) -> None:
    repository.push("good", {"compose.yml": GOOD, "text": "one"})
    repository.add("--interval", "1s")
    before = repository.tasks()
    aside = repository.bare.rename(repository.bare.with_suffix(".away"))
    lost = repository.sync(check=False)
    assert lost.returncode == 1
    assert "cannot be followed since" in lost.stderr
    since = repository.row()["since"]
    repository.sync(check=False)
    assert repository.row()["since"] == since
    assert repository.row()["state"] == "unreachable"
    assert repository.tasks() == before
    aside.rename(repository.bare)
    repository.push("back", {"text": "two"})
    repository.sync()
    assert repository.text() == "two"


def test_history_may_be_rewritten_and_a_branch_renamed(repository: Repository) -> None:
    repository.push("good", {"compose.yml": GOOD, "text": "one"})
    repository.push("more", {"text": "two"})
    repository.add()
    repository.git("reset", "-q", "--hard", "HEAD~1")
    repository.push("another past", {"text": "three"}, force=True)
    repository.sync()
    assert repository.text() == "three"
    repository.git("push", "-q", "origin", "HEAD:trunk")
    subprocess.run(["git", "-C", repository.bare, "symbolic-ref", "HEAD", "refs/heads/trunk"], check=True)
    subprocess.run(["git", "-C", repository.bare, "branch", "-q", "-D", "main"], check=True)
    assert "good" in repository.sync().stdout


def test_only_signed_commits_are_taken(repository: Repository, tmp_path: Path) -> None:
    for who in ("ann", "eve"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / who], check=True)
    (tmp_path / "signers").write_text(f"ann@example.org {(tmp_path / 'ann.pub').read_text()}")
    repository.push("not signed", {"compose.yml": GOOD, "text": "one"})
    failed = repository.add("--signed-by", str(tmp_path / "signers"), check=False)
    assert "is not signed by an allowed signer" in failed.stdout
    for who, fine in (("eve", False), ("ann", True)):
        repository.git(
            "-c",
            "gpg.format=ssh",
            "-c",
            f"user.signingkey={tmp_path / who}",
            "commit",
            "-q",
            "-S",
            "--allow-empty",
            "-m",
            f"by {who}",
        )
        repository.git("push", "-q", "origin", "HEAD:main")
        assert (repository.sync(check=False).returncode == 0) is fine
    assert repository.text() == "one"


def test_openpgp_signatures_count_too(repository: Repository, tmp_path: Path) -> None:
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    for who in ("ann", "eve"):
        subprocess.run([*gpg, "--quick-generate-key", f"{who}@example.org", "ed25519", "sign"], check=True, capture_output=True)
    public = subprocess.run([*gpg, "--armor", "--export", "ann@example.org"], check=True, capture_output=True, text=True).stdout
    (tmp_path / "keys.asc").write_text(public)
    repository.push("not signed", {"compose.yml": GOOD, "text": "one"})
    try:
        failed = repository.add("--signed-by", str(tmp_path / "keys.asc"), check=False)
        assert "is not signed by an allowed signer" in failed.stdout
        for who, fine in (("eve", False), ("ann", True)):
            key = ("-c", f"user.signingkey={who}@example.org")
            sign = ["git", *PERSON, *key, "commit", "-q", "-S", "--allow-empty", "-m", who]
            subprocess.run(sign, cwd=repository.copy, check=True, env=os.environ | {"GNUPGHOME": str(home)})
            repository.git("push", "-q", "origin", "HEAD:main")
            assert (repository.sync(check=False).returncode == 0) is fine
        assert repository.text() == "one"
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


SECRETS = """
services:
  web:
    image: busybox
    command: [sleep, "10000"]
    stop_signal: SIGKILL
    env_file: web.env
    secrets: [password, settings]
    configs: [text]
secrets: {password: {file: ./password.age}, settings: {file: ./settings.yaml}}
configs: {text: {file: ./text}}
"""


def encrypted(repository: Repository, recipient: str, password: str) -> dict[str, str | None]:
    """The files of a stack with secrets, encrypted by the real age and sops."""
    sops = Path(sys.executable).parent / "sops"
    files: dict[str, str | None] = {"compose.yml": SECRETS, "text": "open"}
    age = ["age", "--armor", "--recipient", recipient]
    files["password.age"] = subprocess.run(age, input=password, capture_output=True, text=True, check=True).stdout
    for name, kind, text in (
        ("settings.yaml", "yaml", f"db:\n  password: {password}\n  port: 5432\n"),
        ("web.env", "dotenv", f"API_KEY={password}\n"),
    ):
        command = [str(sops), "encrypt", "--age", recipient, "--input-type", kind, "--output-type", kind, "/dev/stdin"]
        files[name] = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
        assert password not in str(files[name])
    return files


def test_secrets_lie_encrypted_in_the_repository(repository: Repository, tmp_path: Path, lab: Pystack) -> None:
    keys = tmp_path / "age.key"
    subprocess.run(["age-keygen", "-o", str(keys)], check=True, capture_output=True)
    recipient = subprocess.run(["age-keygen", "-y", str(keys)], check=True, capture_output=True, text=True).stdout.strip()
    first = repository.push("secrets", encrypted(repository, recipient, "hunter-two"))
    done = repository.add(check=False)  # with no key, nothing that is still encrypted is handed out
    assert done.returncode == 1
    assert "secret password is encrypted" in done.stderr + done.stdout
    assert "--age-key" in done.stderr + done.stdout
    repository.pystack("gitops", "rm", repository.name)
    repository.add("--age-key", str(keys))
    assert repository.row()["good"] == first

    def inside(*command: str) -> str:
        return lab("exec", "-p", repository.name, "-T", "web", *command).stdout

    assert inside("cat", "/run/secrets/password") == "hunter-two"
    assert inside("cat", "/run/secrets/settings") == "db:\n    password: hunter-two\n    port: 5432\n"
    assert inside("sh", "-c", "echo $API_KEY").strip() == "hunter-two"
    root = lab.environment["PYSTACK_ROOT"]
    found = subprocess.run(["grep", "-rl", "hunter-two", f"{root}/gitops"], capture_output=True, text=True, check=False).stdout
    assert found == ""  # on no disk in the clear
    assert not list(Path(f"{root}/run").glob("gitops-trees/*/*"))

    other = tmp_path / "other.key"
    subprocess.run(["age-keygen", "-o", str(other)], check=True, capture_output=True)
    stranger = subprocess.run(["age-keygen", "-y", str(other)], check=True, capture_output=True, text=True).stdout.strip()
    repository.push("for somebody else", encrypted(repository, stranger, "not-for-us"))
    said = repository.sync(check=False)
    assert said.returncode == 1
    assert "password.age: the age key does not open it" in said.stdout
    assert "settings.yaml: sops does not open it" in said.stdout
    assert inside("cat", "/run/secrets/password") == "hunter-two"
    last = repository.push("changed", encrypted(repository, recipient, "hunter-three"))
    repository.sync()
    assert repository.row()["good"] == last
    assert inside("cat", "/run/secrets/password") == "hunter-three"
    plan = ("plan", "-p", repository.name, "--exit-code", "--from-git", "HEAD")
    blind = repository.pystack(*plan, cwd=repository.copy, check=False)
    assert "SOPS_AGE_KEY_FILE" in blind.stderr
    repository.pystack.environment["SOPS_AGE_KEY_FILE"] = str(keys)
    try:
        seen = repository.pystack(*plan, cwd=repository.copy, check=False)
    finally:
        del repository.pystack.environment["SOPS_AGE_KEY_FILE"]
    assert (seen.returncode, seen.stdout) == (0, "nothing to do\n"), seen.stderr


def test_ssh_with_a_deploy_key_and_a_host_key_that_must_be_right(repository: Repository, tmp_path: Path) -> None:
    lab = repository.pystack
    repository.push("good", {"compose.yml": GOOD, "text": "one"})
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "deploy"], check=True)
    machine = Path(f"/var/lib/pystack-lab/{lab.lab}/n1")
    authorized = machine / "authorized_keys"
    before = authorized.read_text()
    known = tmp_path / "known_hosts"
    address = "10.99.0.1"
    known.write_text(f"{address} {(machine / 'ssh_host_key.pub').read_text()}")
    url = f"ssh://root@{address}{repository.bare}"
    try:
        refused = repository.add("--deploy-key", str(tmp_path / "deploy"), "--known-hosts", str(known), url=url, check=False)
        assert "Permission denied" in refused.stderr
        lab("gitops", "rm", repository.name)
        authorized.write_text(before + (tmp_path / "deploy.pub").read_text())
        repository.add("--deploy-key", str(tmp_path / "deploy"), "--known-hosts", str(known), url=url)
        assert repository.text() == "one"
        lab("gitops", "rm", repository.name)
        known.write_text(f"{address} {(tmp_path / 'deploy.pub').read_text()}")
        stranger = repository.add("--deploy-key", str(tmp_path / "deploy"), "--known-hosts", str(known), url=url, check=False)
        assert "Host key verification failed" in stranger.stderr
    finally:
        authorized.write_text(before)


def test_a_signed_webhook_makes_it_look_at_once(repository: Repository, tmp_path: Path) -> None:
    lab = repository.pystack
    repository.push("good", {"compose.yml": GOOD, "text": "one"})
    (tmp_path / "hook").write_text("sesame\n")
    unsafe = repository.add("--webhook", "127.0.0.1:9911", check=False)
    assert unsafe.returncode == 2
    repository.add("--webhook", "127.0.0.1:9911", "--webhook-secret", str(tmp_path / "hook"))
    repository.push("more", {"text": "two"})
    body = '{"ref": "refs/heads/main"}'
    right = hmac.new(b"sesame", body.encode(), hashlib.sha256).hexdigest()
    for header, status in (
        ("X-Hub-Signature-256: sha256=" + "0" * 64, "403"),
        ("X-Gitlab-Token: wrong", "403"),
        (f"X-Hub-Signature-256: sha256={right}", "202"),
    ):
        said = lab.on(
            "n1",
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            header,
            "-d",
            body,
            f"http://127.0.0.1:9911/{repository.name}",
        )
        assert said == status
    eventually(lambda: _says(repository, "two"), 15)


def _says(repository: Repository, text: str) -> None:
    done = repository.pystack("exec", "-p", repository.name, "-T", "web", "cat", "/text", check=False)
    assert done.stdout == text


def test_who_wants_to_know_is_told(repository: Repository, tmp_path: Path) -> None:
    repository.push("good", {"compose.yml": GOOD, "text": "one"})
    repository.add("--status-command", f"echo $PYSTACK_PHASE $PYSTACK_COMMIT >> {tmp_path}/told")
    bad = repository.push("bad", {"compose.yml": "services: []"})
    repository.sync(check=False)
    assert (tmp_path / "told").read_text().splitlines()[-1] == f"failed {bad}"


def test_a_paused_one_is_left_alone(repository: Repository) -> None:
    repository.push("good", {"compose.yml": GOOD, "text": "one"})
    repository.add("--interval", "1s")
    assert "paused" in repository.pystack("gitops", "pause", repository.name).stdout
    repository.push("more", {"text": "two"})
    repository.sync()
    assert repository.text() == "one"
    repository.pystack("gitops", "resume", repository.name)
    eventually(lambda: _says(repository, "two"), 15)


def test_a_pull_request_can_be_seen_before_it_lands(repository: Repository) -> None:
    live, plan = repository.push("good", {"compose.yml": GOOD, "text": "one"}), ("plan", "-p", repository.name, "--from-git")
    repository.add()
    repository.git("checkout", "-q", "-b", "proposal")
    (repository.copy / "text").write_text("two")
    repository.git("commit", "-q", "-a", "-m", "proposal")
    (repository.copy / "compose.yml").write_text("what lies in the working copy is no matter")
    same = repository.pystack(*plan, live, "--exit-code", cwd=repository.copy, check=False)
    assert (same.returncode, same.stdout) == (0, "nothing to do\n")
    seen = repository.pystack(*plan, "proposal", "--exit-code", "--markdown", cwd=repository.copy, check=False)
    assert seen.returncode == 2
    assert "**1 to update, 1 to replace**" in seen.stdout
    assert f"| replace | task `{repository.name}-web-1` | n1 | the content of config text changed |" in seen.stdout
    assert repository.text() == "one"
    for ref, why in (("nowhere", "there is no commit nowhere"), ("proposal", "")):
        where = repository.copy if ref == "nowhere" else repository.copy.parent
        failed = repository.pystack(*plan, ref, cwd=where, check=False)
        assert failed.returncode == 1
        assert why in failed.stderr


def test_the_example_repository_works(repository: Repository) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "gitops"
    name = repository.name
    repository.push(
        "the example",
        {
            str(p.relative_to(example)): p.read_text()
            .replace("name: shop", f"name: {name}-shop")
            .replace("name: status", f"name: {name}-status")
            for p in example.rglob("*")
            if p.is_file()
        },
    )
    repository.add("--prune", "--target", "production")
    row = repository.row()
    assert row["state"] == "good", row["message"]
    assert set(row["stacks"]) == {f"{name}-shop", f"{name}-status"}


@pytest.mark.long
def test_any_row_of_commits_and_kills_ends_at_the_newest_good_one(repository: Repository) -> None:
    """Good, broken, crashing, huge, reverted, renamed, force-pushed; the server is killed in between. PYSTACK_COMMITS says how
    many."""
    lab, rng = repository.pystack, random.Random(7)
    repository.push("first", {"compose.yml": GOOD, "text": "0"})
    repository.add("--interval", "1s", "--prune")
    file, good, count = "compose.yml", ["0"], int(os.environ.get("PYSTACK_COMMITS", "25"))
    was: tuple[bool, str] = True, "0"
    for number in range(1, count + 1):
        kind = rng.choice(["good", "good", "broken", "crash", "rename", "force", "huge", "revert"])
        files: dict[str, str | None] = {file: GOOD, "text": str(number)}
        works = kind not in ("broken", "crash")
        if kind == "broken":
            files[file] = "services: {web: {imagee: x}}"
        elif kind == "crash":
            files[file] = GOOD.replace('[sleep, "10000"]', "['false']")
        elif kind == "rename":
            files[file] = None
            file = "stack.yml" if file == "compose.yml" else "compose.yml"
            files[file] = GOOD
        elif kind == "huge":
            files["blob"] = f"{rng.random()}" * 200_000
        if kind == "force":
            repository.git("commit", "-q", "--amend", "-m", "another past")
        if kind == "revert":  # the files are as the commit before had them
            repository.push("to be reverted", {"text": f"{number} reverted"})
            repository.git("revert", "--no-edit", "HEAD")
            repository.git("push", "-q", "origin", "HEAD:main")
            works, text = was
        else:
            repository.push(kind, files, force=kind == "force")
            text = str(number)
        was = works, text
        if works:
            good.append(text)
        if rng.random() < 0.3:
            lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")
        elif rng.random() < 0.6 and repository.sync(check=False).returncode == 0:
            assert repository.text() == good[-1]
    repository.push("last", {file: GOOD, "text": "last"})
    eventually(lambda: _says(repository, "last"), 30)
    broken = repository.push("broken at last", {file: "services: 5"})
    eventually(lambda: _failed(repository), 30)
    assert repository.text() == "last"
    assert len(repository.tasks()) == 1
    folder = Path(lab.environment["PYSTACK_ROOT"]) / "gitops" / repository.name
    assert sorted(p.name for p in folder.iterdir()) == ["git", "gitconfig"]
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert size < 64 << 20  # what only older commits need goes
    revisions = json.loads(lab("history", "-p", repository.name, "--format", "json").stdout)
    assert [r["revision"] for r in revisions] == list(range(revisions[0]["revision"], revisions[-1]["revision"] + 1))
    assert repository.row()["history"][-1]["commit"]["id"] == broken


def _failed(repository: Repository) -> None:
    assert repository.row()["state"] == "failed"
