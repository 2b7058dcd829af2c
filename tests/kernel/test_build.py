"""`build:` of stack files, on the node's own images."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from agent.contract.container import BUILD_EXTRAS
from tests.conftest import Pystack, Stack
from tests.images import tar_of

pytestmark = pytest.mark.kernel


def test_args_target_ignored_files_and_cache(stack: Stack, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "Dockerfile").write_text(
        "FROM busybox AS base\nARG WORD=none\nCOPY . /app\nRUN echo $WORD > /word\n"
        'FROM base AS small\nCMD ["sleep", "1000"]\nFROM base AS last\nCMD ["false"]\n'
    )
    (app / ".dockerignore").write_text("*.secret\n")
    (app / "a.secret").write_text("hidden")
    (app / "a.txt").write_text("seen")
    text = "services:\n  a:\n    build: {context: ./app, target: small, args: {WORD: given}}\n    stop_grace_period: 0s\n"
    stack.up(text)
    assert stack.exec("a", "cat", "/word", "/app/a.txt") == "given\nseen"
    assert "a.secret" not in stack.exec("a", "ls", "/app")
    before = stack.ps()["a-1"]["id"]
    assert "Using cache" in stack.up("", "--build").stderr
    assert stack.ps()["a-1"]["id"] == before
    (app / "a.txt").write_text("changed")
    stack.up("", "--build")
    assert stack.ps()["a-1"]["id"] != before
    assert stack.exec("a", "cat", "/app/a.txt") == "changed"


def test_a_context_is_sent_by_difference(stack: Stack, tmp_path: Path) -> None:
    app = tmp_path / "app"
    (app / "sub").mkdir(parents=True)
    (app / "Dockerfile").write_text("FROM busybox\nCOPY . /app\nCOPY --from=more . /more\n")
    (app / "large").write_bytes(os.urandom(4_000_000))
    (app / "sub/gone").write_text("gone")
    (app / "sub/kept").write_text("kept")
    (app / "sub/run").write_text("run")
    (app / "link").symlink_to("sub/kept")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/file").write_text("further")
    text = (
        "services:\n  a:\n    build: {context: ./app, additional_contexts: {more: ./more}}\n"
        "    command: sleep 1000\n    stop_grace_period: 0s\n"
    )
    stack.up(text)
    assert stack.exec("a", "cat", "/app/link", "/app/sub/gone", "/more/file") == "keptgonefurther"
    root = Path(stack.pystack.environment["PYSTACK_ROOT"])
    kept = {p.parent.parent.name: p.stat().st_ino for p in (root / "build/contexts").glob("*/tree/large")}
    assert len(kept) == 1
    (app / "sub/gone").unlink()
    (app / "sub/run").chmod(0o755)
    (app / "sub/kept").write_text("kept")
    os.utime(app / "large")  # another time, and no byte: it is not sent
    (app / "link").unlink()
    (app / "link").symlink_to("sub/run")
    stack.up("", "--build")
    assert stack.exec("a", "cat", "/app/link", "/app/sub/kept") == "runkept"
    assert stack.exec("a", "ls", "/app/sub").split() == ["kept", "run"]
    assert "rwxr-xr-x" in stack.exec("a", "ls", "-l", "/app/sub/run")
    assert {p.parent.parent.name: p.stat().st_ino for p in (root / "build/contexts").glob("*/tree/large")} == kept
    assert not list((root / "build/jobs").iterdir())


def test_a_build_that_fails_and_a_missing_context(stack: Stack, tmp_path: Path) -> None:
    done = stack.up("services:\n  a: {build: ./none}\n", check=False)
    assert done.returncode == 1
    assert "stack.yml:2:3" in done.stderr
    assert "does not exist" in done.stderr
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN exit 4\n")
    done = stack.up("services:\n  a: {build: .}\n", check=False)
    assert done.returncode == 1
    assert "The command '/bin/sh -c exit 4' returned a non-zero code: 4" in done.stderr


def test_what_a_refused_build_brought_along_does_not_stay(lab: Pystack, tmp_path: Path) -> None:
    """Secrets travel in the context: they are no longer on the node when the build has ended, however it did."""
    root = Path(lab.environment["PYSTACK_ROOT"])
    (tmp_path / "context.tar").write_bytes(tar_of({f"{BUILD_EXTRAS}/secrets/token": b"hush", "a": b"x"}))
    said = lab.on(
        "n1",
        "curl",
        "-s",
        "--unix-socket",
        str(root / "run/docker.sock"),
        "-X",
        "POST",
        "--data-binary",
        f"@{tmp_path}/context.tar",
        "http://node/build",
    )
    assert "the build context has no Dockerfile" in said
    assert not list((root / "build").rglob("token"))


@pytest.mark.parametrize(("linked", "target"), [("", "."), ("/secrets", "."), ("/secrets/word", "word")])
def test_a_context_hands_no_file_of_the_host_to_run(linked: str, target: str, lab: Pystack, tmp_path: Path) -> None:
    """What lies beside a context comes from the client alone: links in its place would lead to files of the node."""
    (tmp_path / "word").write_text("of the host")
    files: dict[str, bytes | str | None] = {
        "Dockerfile": b"FROM busybox\nRUN --mount=type=secret,id=word cat /run/secrets/word\n",
        f"{BUILD_EXTRAS}{linked}": str(tmp_path / target),
    }
    (tmp_path / "context.tar").write_bytes(tar_of(files))
    socket = f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"
    said = lab.on(
        "n1",
        "curl",
        "-s",
        "--unix-socket",
        socket,
        "-X",
        "POST",
        "--data-binary",
        f"@{tmp_path}/context.tar",
        "http://node/build",
    )
    assert "is a symbolic link: refused" in said
    assert "of the host" not in said


def test_a_healthcheck_of_the_image_opens_the_gate(stack: Stack, tmp_path: Path) -> None:
    """What an image says of its health is known to depends_on."""
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nHEALTHCHECK --interval=100ms --start-interval=100ms CMD test -e /ok\n"
        'CMD ["sh", "-c", "touch /ok; sleep 1000"]\n'
    )
    stack.up(
        "services:\n  a: {build: ., stop_grace_period: 0s}\n"
        "  b: {image: busybox, command: sleep 1000, stop_grace_period: 0s, depends_on: {a: {condition: service_healthy}}}\n"
    )
    assert stack.ps()["b-1"]["state"] == "running"


def test_a_dockerfile_beside_the_context_is_in_no_image(stack: Stack, tmp_path: Path) -> None:
    for name in ("app", "inline"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("seen")
    (tmp_path / "Other").write_text("FROM busybox\nCOPY . /app\nCMD sleep 1000\n")
    (tmp_path / "Other.dockerignore").write_text("gone\n")
    (tmp_path / "app" / "gone").write_text("x")
    stack.up(
        "services:\n  a: {build: {context: ./app, dockerfile: ../Other}, stop_grace_period: 0s}\n"
        "  b:\n    stop_grace_period: 0s\n    build:\n      context: ./inline\n"
        "      dockerfile_inline: |\n        FROM busybox\n        COPY . /app\n        CMD sleep 1000\n"
    )
    assert stack.exec("a", "ls", "-A", "/app") == "a\n"
    assert stack.exec("b", "ls", "-A", "/app") == "a\n"


def test_rights_and_stages_that_a_stack_file_names(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS x\nRUN head -c 8 /dev/urandom | sha256sum > /x\nFROM x\n"
        "RUN --security=insecure mkdir /m && mount -t tmpfs x /m && umount /m\nCMD sleep 1000\n"
    )
    text = "services:\n  a: {build: {context: ., no_cache_filter: [x], ENT}, stop_grace_period: 0s}\n"
    done = stack.up(text.replace(", ENT", ""), check=False)
    assert done.returncode == 1
    assert "Dockerfile:4:1: security.insecure is not allowed" in done.stderr
    assert ">>> RUN --security=insecure" in done.stderr
    stack.up(text.replace("ENT", "entitlements: [security.insecure]"))
    first = stack.exec("a", "cat", "/x")
    stack.up("", "--build")
    assert stack.exec("a", "cat", "/x") != first


def test_an_ignore_file_that_is_none_is_told_with_its_place(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\n")
    (tmp_path / ".dockerignore").write_text("a\n[\n")
    done = stack.up("services:\n  a: {build: .}\n", check=False)
    assert done.returncode == 1
    assert ".dockerignore: ignore pattern 2: '[': syntax error in pattern" in done.stderr


def test_further_contexts_that_a_stack_file_names(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "f").write_text("more")
    text = (
        "services:\n"
        '  base: {image: "NAME:base", build: {dockerfile_inline: "FROM busybox\\nRUN echo base > /b"}, command: sleep 1000,\n'
        "    stop_grace_period: 0s}\n"
        '  a:\n    stop_grace_period: 0s\n    build:\n      additional_contexts: {below: "VALUE", more: ./more}\n'
        "      dockerfile_inline: |\n        FROM below\n        COPY --from=more f /f\n        CMD sleep 1000\n"
    ).replace("NAME", stack.name)
    for value in ("service:base", "target:base"):
        stack.up(text.replace("VALUE", value))
        assert stack.exec("a", "cat", "/b", "/f") == "base\nmore"
    for value, words in (
        ("./none", f"services.a.build.additional_contexts.below: folder {tmp_path}/none does not exist"),
        ("oci-layout://./x", "additional_contexts.below: oci-layout://./x is not a context"),
        ("target:none", "service 'none' is not in the file"),
    ):
        done = stack.up(text.replace("VALUE", value), "--build", check=False)
        assert done.returncode == 1
        assert words in done.stderr


def test_what_a_build_may_cost(stack: Stack, tmp_path: Path) -> None:
    group = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null > /memory; true"
    quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null > /cpu || cat /sys/fs/cgroup/cpu.max > /cpu"
    text = "services:\n  a:\n    build: .\n    x-build: {memory: 64m, cpus: 0.5, timeout: TIME}\n    stop_grace_period: 0s\n"
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN {group}\nRUN {quota}\nCMD sleep 1000\n")
    stack.up(text.replace("TIME", "10m"))
    assert stack.exec("a", "cat", "/memory") == f"{64 << 20}\n"
    assert stack.exec("a", "cat", "/cpu").split()[0] == "50000"
    span = f"{uuid.uuid4().int % 10**6 + 10**6}"
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN sleep {span}\n")
    done = stack.up(text.replace("TIME", "1s"), "--build", check=False)
    assert done.returncode == 1
    assert "the build did not end within 1 s" in done.stderr
    assert not any(span.encode() in path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    done = stack.up(text.replace("TIME", "soon"), check=False)
    assert "services.a.x-build.timeout" in done.stderr
