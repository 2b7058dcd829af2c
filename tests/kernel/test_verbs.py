"""Verbs that look into tasks and reach into them: top, stats, port, cp, attach, kill, pause, wait, rm, create, scale."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Pystack, Stack, eventually
from tests.images import archive, tar_of

pytestmark = pytest.mark.kernel
SLEEP = "command: sleep 1000\n    stop_grace_period: 0s"
ONE = f"services:\n  a:\n    image: busybox\n    {SLEEP}\n"


def test_top_stats_and_port(stack: Stack) -> None:
    stack.up(
        "services:\n  a:\n    image: busybox\n    command: sh -c 'while :; do :; done'\n    stop_grace_period: 0s\n"
        "    cpus: 0.25\n    mem_limit: 64m\n    pids_limit: 20\n    ports: ['8087:80/tcp']\n"
    )
    rows = json.loads(stack.run("top", "--format", "json").stdout)
    assert [row["cmd"] for row in rows] == ["sh -c while :; do :; done"]
    (usage,) = json.loads(stack.run("stats", "--format", "json").stdout)
    assert usage["memory_limit"] == 64 << 20
    assert usage["pids"] == 1
    assert 10 < usage["cpu_percent"] < 40  # a quarter of a core, in a window of a second
    assert "0.0.0.0:8087" in stack.run("port", "a", "80").stdout.split()
    missing = stack.run("port", "a", "81", check=False)
    assert missing.returncode == 1
    assert "it publishes 80/tcp" in missing.stderr


def test_kill_pause_wait_and_rm(stack: Stack) -> None:
    stack.up(ONE)
    stack.run("pause")
    assert stack.ps()["a-1"]["state"] == "paused"
    assert "is paused" in stack.run("exec", "a", "true", check=False).stderr
    stack.run("unpause")
    assert stack.ps()["a-1"]["state"] == "running"
    stack.run("kill")
    assert stack.ps()["a-1"]["state"] == "exited"
    assert stack.run("wait", "a", check=False).returncode == 137
    assert stack.run("rm", "-f").stdout == f"{stack.name}-a-1\n"
    assert stack.ps() == {} or not stack.ps()["a-1"]["id"]
    stack.up()
    assert stack.ps()["a-1"]["state"] == "running"
    assert "No stopped containers" in stack.run("rm", "-f").stderr


@pytest.mark.parametrize(
    ("verb", "left"),
    [
        ("stop", "exited"),
        ("restart", "running"),
        ("kill", "exited"),
        ("kill --signal SIGTERM", "running"),
        ("rm -f -s", ""),
        ("up --force-recreate", "running"),
        ("down", ""),
    ],
)
def test_what_is_paused_can_be_ended(stack: Stack, verb: str, left: str) -> None:
    """cgroup v1 keeps even SIGKILL from a frozen process: it has to run to end."""
    stack.up(ONE)
    stack.run("pause")
    stack.run(*verb.split())
    row = stack.ps().get("a-1", {})
    assert row.get("state", "") == left or (not left and not row["id"])
    if left == "running":
        stack.run("exec", "a", "true")


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_however_many_ignore_their_signal_all_wait_at_once(stack: Stack, verb: str) -> None:
    """Twenty have one grace period, not one after the other a few at a time: it is over long after this test is."""
    names = [f"s{n}" for n in range(20)]
    lines = [f"  {name}:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 5m\n" for name in names]
    stack.up("services:\n" + "".join(lines))
    command = [sys.executable, "-m", "orchestrator", "-f", str(stack.file), verb, "-p", stack.name]
    ending = subprocess.Popen(command, env=stack.pystack.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def all_are_stopping() -> None:
        assert [row["state"] for row in stack.ps().values()] == ["stopping"] * 20

    try:
        eventually(all_are_stopping, 60)
    finally:
        stack.pystack("container", "kill", *(str(row["id"]) for row in stack.ps().values()))
        _, said = ending.communicate(timeout=60)
    assert ending.returncode == 0, said.decode()
    stack.run("kill")


def test_create_starts_nothing_and_scale_changes_the_number(stack: Stack) -> None:
    stack.write(ONE)
    stack.run("create")
    assert all(row["state"] != "running" for row in stack.ps().values())
    stack.up()
    stack.run("scale", "a=3")
    assert sorted(stack.ps()) == ["a-1", "a-2", "a-3"]
    stack.run("scale", "a=1")
    assert sorted(stack.ps()) == ["a-1"]
    assert "no such service" in stack.run("scale", "b=1", check=False).stderr


def test_cp_both_ways(stack: Stack, tmp_path: Path) -> None:
    stack.up(f"{ONE}    volumes: ['data:/data']\nvolumes: {{data: {{}}}}\n")
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "leaf").write_text("green\n")
    (tmp_path / "tree" / "link").symlink_to("deep/leaf")
    stack.run("cp", str(tmp_path / "tree"), "a:/data")  # a volume: only the container's own view has it
    assert stack.exec("a", "cat", "/data/tree/link") == "green\n"
    stack.run("cp", str(tmp_path / "tree") + "/.", "a:/srv")
    assert stack.exec("a", "cat", "/srv/deep/leaf") == "green\n"
    stack.run("cp", "a:/data/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "deep" / "leaf").read_text() == "green\n"
    assert (tmp_path / "back" / "link").readlink() == Path("deep/leaf")
    stack.run("cp", "a:/srv/hello", str(tmp_path))
    assert (tmp_path / "hello").read_text() == "hello from the image\n"
    missing = stack.run("cp", "a:/nowhere", str(tmp_path), check=False)
    assert missing.returncode == 1
    assert "/nowhere" in missing.stderr
    stack.run("stop")
    stack.run("cp", "a:/srv/deep/leaf", str(tmp_path / "stopped"))
    assert (tmp_path / "stopped").read_text() == "green\n"


def test_an_archive_cannot_write_outside_the_container(lab: Pystack) -> None:
    lab("container", "run", "-d", "--name", "jail", "busybox", "sleep", "1000")
    root = Path(lab.environment["PYSTACK_ROOT"])
    words = [sys.executable, "-m", "orchestrator", "container", "cp", "-", "jail:/tmp"]
    for name in ("/escaped", "../../../../escaped"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"evil"))
        done = subprocess.run(words, input=out.getvalue(), env=lab.environment, check=False, capture_output=True)
        said = done.stderr.decode()
        refused = (1, f"pystack: the archive's entry {name} leaves its root\n")
        assert (done.returncode, said) == (refused if ".." in name else (0, ""))
    assert lab("container", "exec", "jail", "ls", "/tmp").stdout.split() == ["escaped"]
    assert not Path("/escaped").exists()
    assert not (root / "escaped").exists()
    lab("container", "rm", "-f", "jail")


def test_attach_lends_standard_input_and_ends_with_the_exit_status(lab: Pystack) -> None:
    script = "read word; echo got $word; echo bad >&2; exit 3"
    lab("container", "run", "-d", "-i", "--name", "talk", "busybox", "sh", "-c", script)
    done = lab("container", "attach", "talk", stdin="hello\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "got hello\n", "bad\n")
    lab("container", "rm", "talk")


def test_run_has_the_services_networks_and_volumes_and_passes_streams_on(stack: Stack) -> None:
    stack.write(
        "services:\n"
        "  web: {image: busybox, command: httpd -f -p 80 -h /var/www, stop_grace_period: 0s}\n"
        "  job: {image: busybox, command: 'false', depends_on: [web], volumes: ['data:/data'], environment: {WORD: one}}\n"
        "volumes: {data: {}}\n"
    )
    assert stack.run("run", "--rm", "-T", "job", "wget", "-qO-", "http://web/").stdout == "it works\n"
    assert sorted(stack.ps()) == ["web-1"]
    done = stack.run(
        "run",
        "--rm",
        "-T",
        "-e",
        "MORE=two",
        "job",
        "sh",
        "-c",
        "cat > /data/in; echo $WORD $MORE; exit 4",
        stdin="from here\n",
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "one two\n")
    assert stack.run("run", "--rm", "-T", "--no-deps", "job", "cat", "/data/in").stdout == "from here\n"
    assert stack.run("run", "--rm", "-T", "job", check=False).returncode == 1
    assert f"{stack.name}-job-run" not in stack.pystack("container", "ls", "-a").stdout
    assert "no such service: nothing" in stack.run("run", "nothing", check=False).stderr


def test_container_run_reads_standard_input_to_its_end(lab: Pystack) -> None:
    done = lab("container", "run", "--rm", "-i", "busybox", "wc", "-c", stdin="x" * 100_000)
    assert done.stdout.strip() == "100000"


def test_system_df_and_prune_tell_use_from_waste(lab: Pystack, tmp_path: Path) -> None:
    lab("image", "load", "-i", str(archive(tmp_path / "i.tar", [tar_of({"big": os.urandom(300_000)})], name="waste:1")))
    lab("container", "run", "--name", "left", "busybox", "dd", "if=/dev/zero", "of=/filled", "bs=100k", "count=2", check=False)
    before = {row["type"]: row for row in lab.json("system", "df", "--format", "json")}
    assert before["containers"]["reclaimable"] >= 200 * 1024
    assert before["images"]["reclaimable"] >= 300_000
    lab("container", "run", "-d", "--name", "used", "busybox", "sleep", "1000")
    done = lab("system", "prune", "-a", "-f")
    assert "containers: 1" in done.stdout
    assert "waste" not in lab("image", "ls").stdout
    assert "busybox" in lab("image", "ls").stdout  # a running container has it
    lab("container", "rm", "-f", "used")
    after = {row["type"]: row for row in lab.json("system", "df", "--format", "json")}
    assert after["images"]["size"] < before["images"]["size"] - 290_000


def test_the_changes_of_a_container_have_their_whole_names(lab: Pystack) -> None:
    """GET /containers/NAME/changes, which `docker diff` asks: 1 is added, 2 deleted."""
    lab("container", "run", "--name", "changed", "busybox", "sh", "-c", "mkdir /.hidden; touch /.hidden/.a; rm /bin/vi")
    try:
        socket = f"{lab.environment['PYSTACK_ROOT']}/run/docker.sock"
        rows = json.loads(lab.on("n1", "curl", "-s", "--unix-socket", socket, "http://node/containers/changed/changes"))
        found = {row["Path"]: row["Kind"] for row in rows}
        assert {"/.hidden": 1, "/.hidden/.a": 1, "/bin/vi": 2}.items() <= found.items()
    finally:
        lab("container", "rm", "changed")
