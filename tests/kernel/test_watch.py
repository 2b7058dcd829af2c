"""`pystack watch`: files that change here change in the containers, or lead to a restart or another image."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Stack, eventually

FILE = """
services:
  web:
    image: busybox
    command: [sh, -c, "mkdir -p /app; exec sleep 1000"]
    stop_signal: SIGKILL
    deploy: {replicas: 2}
    develop:
      watch:
      - {path: src, action: sync, target: /app, ignore: ["*.log"], initial_sync: true}
      - {path: one.conf, action: sync+restart, target: /etc/one.conf}
      - path: lib
        action: sync+exec
        target: /lib/own
        include: ["*.txt"]
        exec: {command: [sh, -c, "echo done >> /hooked"]}
  other: {image: busybox, command: [sleep, "1000"], stop_signal: SIGKILL}
"""


@contextmanager
def watching(stack: Stack, *options: str, compose: bool = False) -> Iterator[list[str]]:
    """`pystack watch`, or `pystack compose watch`, in the background; the lines that it said so far."""
    process = subprocess.Popen(
        # who runs the tests in the background may have SIGINT ignored, and children inherit that
        [
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "orchestrator",
            *(["compose"] if compose else []),
            "-f",
            str(stack.file),
            "-p",
            stack.name,
            "watch",
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=stack.pystack.environment,
    )
    said: list[str] = []

    def listen() -> None:
        assert process.stdout
        said.extend(process.stdout)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        eventually(lambda: _has(said, "Watch enabled" if compose else "watching"), 30)
        yield said
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(20)
        listener.join()
        assert process.stdout
        process.stdout.close()
        assert code == 130


def _has(said: list[str], word: str) -> None:
    assert any(word in line for line in said), said


def _both(stack: Stack, command: str, want: str) -> None:
    for index in ("1", "2"):
        seen = stack.run("exec", "-T", "--index", index, "web", "sh", "-c", command, check=False)
        assert seen.stdout == want


@pytest.fixture
def folder(stack: Stack) -> Path:
    for name, text in (("src/a.txt", "first"), ("src/deep/b.txt", "deep"), ("one.conf", "1"), ("lib/x.txt", "x")):
        path = stack.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    stack.write(FILE)
    return stack.directory


def test_files_are_synced_to_every_task(stack: Stack, folder: Path) -> None:
    with watching(stack):
        eventually(lambda: _both(stack, "cat /app/a.txt /app/deep/b.txt", "firstdeep"), 20)
        (folder / "src/a.txt").write_text("second")
        (folder / "src/new").mkdir()
        (folder / "src/new/c.txt").write_text("new")
        (folder / "src/noise.log").write_text("no")
        eventually(lambda: _both(stack, "cat /app/a.txt /app/new/c.txt; ls /app/noise.log 2>/dev/null", "secondnew"), 20)
        (folder / "src/deep/b.txt").unlink()
        eventually(lambda: _both(stack, "ls /app/deep", ""), 20)
        (folder / "lib/y.md").write_text("not included")
        (folder / "lib/x.txt").write_text("y")
        eventually(lambda: _both(stack, "cat /lib/own/x.txt /hooked; ls /lib/own", "ydone\nx.txt\n"), 20)
        before = stack.ps()
        # an editor writes another file, and puts it in the place of the first
        (folder / "one.conf~").write_text("2")
        (folder / "one.conf~").rename(folder / "one.conf")
        eventually(lambda: _both(stack, "cat /etc/one.conf", "2"), 20)
        eventually(lambda: _restarted(stack, before), 20)


def test_words_of_docker_compose(stack: Stack, folder: Path) -> None:
    with watching(stack, compose=True) as said:
        (folder / "src/a.txt").write_text("second")
        eventually(lambda: _has(said, ' ⦿ Syncing service "web" after 1 changes were detected\n'), 20)
        (folder / "one.conf").write_text("2")
        eventually(lambda: _has(said, ' ⦿ service(s) ["web"] restarted\n'), 20)


def _restarted(stack: Stack, before: dict[str, dict[str, object]]) -> None:
    now = stack.ps()
    assert {n: now[n]["id"] for n in now} == {n: before[n]["id"] for n in before}
    assert all(now[f"web-{i}"]["started"] != before[f"web-{i}"]["started"] for i in (1, 2))
    assert now["other-1"]["started"] == before["other-1"]["started"]


def test_a_rebuild_replaces_exactly_its_service(stack: Stack, folder: Path) -> None:
    (folder / "Dockerfile").write_text('FROM busybox\nCOPY src/a.txt /a.txt\nCMD ["sleep", "1000"]\n')
    stack.write(
        "services:\n  web: {build: ., stop_signal: SIGKILL, develop: {watch: [{path: src, action: rebuild}]}}\n"
        "  other: {image: busybox, command: [sleep, '1000'], stop_signal: SIGKILL}\n"
    )
    with watching(stack, compose=True) as said:
        other = stack.ps()["other-1"]["id"]
        (folder / "src/a.txt").write_text("rebuilt")
        eventually(lambda: _says(stack, "rebuilt"), 60)
        eventually(lambda: _has(said, ' ⦿ service(s) ["web"] successfully built\n'), 20)
        _has(said, ' ⦿ Rebuilding service(s) ["web"] after changes were detected...\n')
        assert stack.ps()["other-1"]["id"] == other


def _says(stack: Stack, text: str) -> None:
    assert stack.run("exec", "-T", "web", "cat", "/a.txt", check=False).stdout == text


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("{path: nowhere, action: sync, target: /x}", "nowhere does not exist"),
        ("{path: src, action: sync}", "sync needs target"),
        ("{path: src, action: rebuild}", "rebuild needs build:"),
        ("{path: src, action: sync+exec, target: /x}", "needs exec"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(stack: Stack, folder: Path, rule: str, why: str) -> None:
    del folder
    stack.write(f"services: {{a: {{image: busybox, develop: {{watch: [{rule}]}}}}}}\n")
    refused = stack.run("watch", check=False)
    assert refused.returncode == 1
    assert why in refused.stderr


@pytest.mark.parametrize("name", [".dockerignore", "Own.dockerignore"])
def test_what_a_build_leaves_out_is_not_synced(stack: Stack, name: str) -> None:
    """Neither at the beginning nor later; the Dockerfile's own ignore file goes before the context's."""
    dockerfile = "Own" if name.startswith("Own") else "Dockerfile"
    texts = {
        dockerfile: 'FROM busybox\nCMD ["sleep", "1000"]\n',
        name: "*\n!dir1\ndir1/*.key\n",
        "secret.txt": "secret",
        "dir1/a.txt": "first",
        "dir1/own.key": "secret",
        "dir1/noise.log": "noise",
    }
    if dockerfile == "Own":
        texts[".dockerignore"] = "dir1\n"
    for path, text in texts.items():
        (stack.directory / path).parent.mkdir(exist_ok=True)
        (stack.directory / path).write_text(text)
    stack.write(
        f"services:\n  web:\n    build: {{context: ., dockerfile: {dockerfile}}}\n    stop_signal: SIGKILL\n"
        "    develop:\n"
        "      watch: [{path: ., action: sync, target: /app, initial_sync: true, ignore: ['**/*.log']}]\n"
    )

    def holds(want: str) -> None:
        look = "find /app -type f | sort | xargs grep -H ."
        assert stack.run("exec", "-T", "web", "sh", "-c", look, check=False).stdout == want

    with watching(stack):
        eventually(lambda: holds("/app/dir1/a.txt:first\n"), 40)
        for path in ("secret.txt", "dir1/own.key", "dir1/noise.log", "other.txt", "stack.yml", dockerfile):
            with (stack.directory / path).open("a") as file:
                file.write("#\n")
        (stack.directory / "dir1/b.txt").write_text("last")
        eventually(lambda: holds("/app/dir1/a.txt:first\n/app/dir1/b.txt:last\n"), 20)
