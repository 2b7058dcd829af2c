"""Stacks on the real kernel, in a lab: what a user types, and what is then true."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Pystack, Stack, eventually
from tests.images import archive, busybox_rootfs, tar_of

pytestmark = pytest.mark.kernel
SLEEP = "command: sleep 1000\n    stop_grace_period: 0s"


def test_up_twice_does_nothing_and_one_change_replaces_what_changed(stack: Stack) -> None:
    text = f"services:\n  a:\n    image: busybox\n    {SLEEP}\n  b:\n    image: busybox\n    {SLEEP}\n"
    stack.up(text)
    before = stack.ps()
    assert {r["state"] for r in before.values()} == {"running"}
    assert stack.up().stderr == ""
    assert stack.run("plan", "--exit-code").stdout == "nothing to do\n"
    stack.write(text.replace("  b:\n    image", "  b:\n    environment: {X: '1'}\n    image"))
    assert stack.run("plan", "--exit-code", check=False).returncode == 2
    stack.up()
    after = stack.ps()
    assert after["a-1"]["id"] == before["a-1"]["id"]
    assert after["b-1"]["id"] != before["b-1"]["id"]
    assert stack.exec("b", "sh", "-c", "echo $X") == "1\n"


def test_depends_on_holds_and_stops_in_reverse(stack: Stack) -> None:
    stack.up(
        "services:\n"
        "  web: {image: busybox, command: sleep 1000, stop_grace_period: 0s,\n"
        "    depends_on: {db: {condition: service_healthy}, job: {condition: service_completed_successfully}}}\n"
        "  db: {image: busybox, command: sh -c 'sleep 0.5; touch /ok; sleep 1000', stop_grace_period: 0s,\n"
        "    healthcheck: {test: test -f /ok, interval: 200ms}}\n"
        "  job: {image: busybox, command: 'true'}\n"
    )
    rows = stack.ps()
    assert rows["db-1"]["health"] == "healthy"
    assert (rows["job-1"]["state"], rows["job-1"]["exit_code"]) == ("exited", 0)
    assert rows["web-1"]["started"] > rows["db-1"]["started"]  # type: ignore[operator]
    said = stack.run("down").stderr
    assert said.index("web-1") < said.index("db-1")


def test_what_waited_for_a_failure_starts_once_that_is_mended(stack: Stack) -> None:
    text = (
        "services:\n  db: {image: busybox, command: sh -c 'exit 1'}\n"
        "  web: {image: busybox, command: sleep 1000, stop_grace_period: 0s,\n"
        "    depends_on: {db: {condition: service_completed_successfully}}}\n"
    )
    done = stack.up(text, check=False)
    assert done.returncode == 1
    assert "it waits for db" in done.stderr
    assert stack.ps()["web-1"]["state"] == "created"
    stack.up(text.replace("exit 1", "exit 0"))
    assert stack.ps()["web-1"]["state"] == "running"


def test_a_service_that_fails_ends_up_with_1_its_last_words_and_its_line(stack: Stack) -> None:
    done = stack.up("services:\n  bad:\n    image: busybox\n    command: sh -c 'echo last words; exit 3'\n", check=False)
    assert done.returncode == 1
    assert "stack.yml:2:3" in done.stderr
    assert "exited with 3" in done.stderr
    assert "| last words" in done.stderr


def test_an_image_that_does_not_exist_is_told_before_anything_starts(stack: Stack) -> None:
    done = stack.up("services:\n  bad: {image: '10.99.0.254:1/none'}\n", "--timeout", "30", check=False)
    assert done.returncode == 1
    assert "10.99.0.254:1" in done.stderr
    assert stack.run("ps", "--format", "json").stdout.strip() == "[]"


def test_names_aliases_isolation_and_published_ports(stack: Stack, lab: Pystack) -> None:
    stack.up(
        "services:\n"
        "  web: {image: busybox, command: httpd -f -p 80 -h /var/www, ports: ['8081:80'], stop_grace_period: 0s,\n"
        "    networks: {front: {aliases: [www]}}}\n"
        "  near: {image: busybox, command: sleep 1000, stop_grace_period: 0s, networks: [front, back]}\n"
        "  far: {image: busybox, command: sleep 1000, stop_grace_period: 0s, networks: {back: {ipv4_address: 172.31.9.9}}}\n"
        "networks:\n  front: {}\n  back: {internal: true, ipam: {config: [{subnet: 172.31.9.0/24}]}}\n"
    )
    for name in ("web", "www", f"{stack.name}-web-1", "tasks.web"):
        assert stack.exec("near", "wget", "-qO-", f"http://{name}/") == "it works\n"
    address = stack.ps()["web-1"]["addresses"][f"{stack.name}_front"]  # type: ignore[index]
    assert stack.exec("far", "wget", "-T2", "-qO-", f"http://{address}/", check=False) == ""
    assert stack.exec("far", "nslookup", "web", check=False).count("NXDOMAIN")
    assert "172.31.9.9" in stack.exec("far", "hostname", "-i")
    assert lab.on("outside", "busybox", "wget", "-qO-", "http://10.99.0.1:8081/") == "it works\n"
    assert lab.on("n1", "busybox", "wget", "-qO-", "http://127.0.0.1:8081/") == "it works\n"
    assert lab.on("n1", "busybox", "wget", "-qO-", "http://10.99.0.1:8081/") == "it works\n"
    assert stack.exec("near", "wget", "-qO-", "http://10.99.0.1:8081/") == "it works\n"
    assert lab.on("outside", "busybox", "wget", "-T2", "-qO-", f"http://{address}/", check=False) == ""


def test_each_replica_answers_at_a_port_of_the_range(stack: Stack, lab: Pystack) -> None:
    """A further replica takes the next one, and who has one keeps it."""
    text = (
        "services:\n  web:\n    image: busybox\n    ports: ['18090-18092:80']\n    stop_signal: SIGKILL\n"
        "    command: sh -c 'mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w'\n    scale: {n}\n"
    )

    def asked(port: int) -> str:
        return lab.on("outside", "curl", "-s", "-m", "3", f"http://10.99.0.1:{port}/", check=False).strip()

    def answered(*ports: int) -> None:
        assert all(asked(p) for p in ports)

    stack.up(text.format(n=2))
    eventually(lambda: answered(18090, 18091))
    first = [asked(18090), asked(18091)]
    assert len(set(first)) == 2
    assert not asked(18092)
    stack.up(text.format(n=3))
    eventually(lambda: answered(18090, 18091, 18092))
    assert [asked(18090), asked(18091)] == first
    assert asked(18092) not in first
    done = stack.up(text.format(n=4), check=False)
    assert done.returncode != 0
    assert "all of 18090-18092/tcp are taken" in done.stderr


def test_a_container_keeps_its_networks_until_it_has_stopped(stack: Stack) -> None:
    """Its network goes with it; others that start meanwhile are not held up by that."""

    def bridges() -> int:
        return len(stack.pystack.on("n1", "ip", "-br", "link", "show", "type", "bridge").splitlines())

    before = bridges()
    stack.up("""
services:
  web:
    image: busybox
    networks: [a, b]
    volumes: [said:/said]
    command:
      - sh
      - -c
      - |
        set -- $$(ip route | grep default)
        trap 'sleep 2; ping -c1 -W2 $$3 >/said/ping; exit' TERM
        while :; do sleep 0.1; done
networks: {a: {}, b: {}}
volumes: {said: {}}
""")
    stack.up("""
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: [b], volumes: ["said:/said"]}
  more: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: [b]}
networks: {b: {}}
volumes: {said: {}}
""")
    assert "1 packets received" in stack.exec("web", "cat", "/said/ping")
    assert f"{stack.name}_a" not in stack.pystack("network", "ls").stdout
    assert bridges() == before + 1


def test_volumes_are_filled_outlive_down_and_go_with_v(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("from the host\n")
    stack.up(
        "services:\n  a:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n"
        "    volumes: ['data:/srv', './conf:/etc/conf:ro', '/anon']\n    tmpfs: /scratch\n"
        "  b: {image: busybox, command: sleep 1000, stop_grace_period: 0s, volumes_from: [a], depends_on: [a]}\n"
        "volumes: {data: {}}\n"
    )
    assert stack.exec("a", "cat", "/srv/hello") == "hello from the image\n"
    assert stack.exec("a", "cat", "/etc/conf") == "from the host\n"
    assert stack.run("exec", "-T", "a", "sh", "-c", "echo x > /etc/conf", check=False).returncode != 0
    stack.exec("a", "sh", "-c", "echo kept > /srv/new; echo shared > /anon/f")
    assert stack.exec("b", "cat", "/srv/new", "/anon/f") == "kept\nshared\n"
    stack.run("down")
    stack.up()
    assert stack.exec("a", "cat", "/srv/new") == "kept\n"
    stack.run("down", "-v")
    assert stack.name not in lab("volume", "ls").stdout


def test_who_shares_a_new_volume_starts_when_it_is_whole(stack: Stack, lab: Pystack, tmp_path: Path) -> None:
    """The first of them fills it from the image; none of the others sees a part of that."""
    files = {f"srv/many/{n}": b"x" * 2000 for n in range(4000)}
    tar = archive(tmp_path / "i.tar", [busybox_rootfs(), tar_of(files)], name=f"docker.io/library/{stack.name}:1")
    lab("image", "load", "-i", str(tar))
    service = f"{{image: '{stack.name}:1', command: sh -c 'ls /srv/many | wc -l', volumes: ['v:/srv/many']}}"
    stack.up("services:\n" + "".join(f"  s{n}: {service}\n" for n in range(6)) + "volumes: {v: {}}\n", "--no-wait")

    def told() -> None:
        lines = stack.run("logs", "--no-log-prefix").stdout.split()
        assert lines == ["4000"] * 6

    eventually(told)


def test_limits_capabilities_seccomp_and_namespaces_hold(stack: Stack, lab: Pystack) -> None:
    stack.up(
        "services:\n  a:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n    hostname: alpha\n"
        "    user: app\n    working_dir: /tmp\n    mem_limit: 64m\n    cpus: 0.5\n    pids_limit: 20\n"
        "    environment: {A: b}\n"
    )
    status = dict(line.split(":\t", 1) for line in stack.exec("a", "cat", "/proc/1/status").splitlines() if ":\t" in line)
    assert status["Seccomp"] == "2"
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapBnd"], 16) == 0xA80425FB
    assert stack.exec("a", "id", "-u", "-n") == "app\n"
    assert stack.exec("a", "hostname") == "alpha\n"
    assert stack.exec("a", "cat", "/proc/kcore", check=False) == ""
    assert stack.run("exec", "-T", "a", "unshare", "-U", "true", check=False).returncode != 0
    limits = stack.exec(
        "a", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    )
    assert limits.strip() == str(64 << 20)
    pids = stack.exec("a", "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max")
    assert pids.strip() == "20"
    own = stack.exec("a", "sh", "-c", "for n in pid net mnt uts ipc; do readlink /proc/self/ns/$n; done")
    host = lab.on("n1", "sh", "-c", "for n in pid net mnt uts ipc; do readlink /proc/self/ns/$n; done")
    assert not set(own.split()) & set(host.split())


def test_a_seccomp_profile_holds_each_time_it_is_used(stack: Stack) -> None:
    """crun is given a program that it compiled before: the second container of each profile, and of no other."""
    calls = {"mkdir": ["mkdir", "mkdirat"], "link": ["link", "linkat"]}
    for name, forbidden in calls.items():
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": forbidden, "action": "SCMP_ACT_ERRNO"}]}
        (stack.directory / f"{name}.json").write_text(json.dumps(profile))
    for number in (1, 2):
        stack.up(
            "services:\n"
            + "".join(
                f"  {name}: {{image: busybox, command: sleep 1000, stop_grace_period: 0s, environment: {{N: '{number}'}},\n"
                f"    security_opt: ['seccomp:{stack.directory}/{name}.json']}}\n"
                for name in calls
            )
        )
        for name in calls:
            assert "Seccomp:\t2" in stack.exec(name, "cat", "/proc/1/status")
            tried = "touch /f; mkdir /d 2>/dev/null || echo mkdir; ln /f /l 2>/dev/null || echo link"
            assert stack.exec(name, "sh", "-c", tried).split() == [name]


def test_less_common_limits_reach_the_kernel(stack: Stack, lab: Pystack) -> None:
    stack.up(
        "services:\n  a:\n    image: busybox\n    command: sleep 1000\n    stop_grace_period: 0s\n"
        "    cpu_period: 50ms\n    cpu_quota: 20000\n    mem_swappiness: 7\n    oom_score_adj: 321\n    cgroup: private\n"
        "    device_cgroup_rules: ['c 10:229 rw']\n    cap_add: [MKNOD]\n"
        "    ulimits: {nofile: {soft: 100, hard: 200}}\n    shm_size: 3m\n    sysctls: {net.core.somaxconn: 77}\n"
        "    init: false\n    extra_hosts: ['far:192.0.2.9']\n    dns_search: [inner.example]\n"
    )

    def one(command: str) -> str:
        return stack.exec("a", "sh", "-c", command).strip()

    v2 = one("test -e /sys/fs/cgroup/cgroup.controllers && echo yes || echo no") == "yes"
    if v2:
        assert one("cat /sys/fs/cgroup/cpu.max") == "20000 50000"
    else:
        assert one("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us").split() == ["20000", "50000"]
        assert one("cat /sys/fs/cgroup/memory/memory.swappiness") == "7"
    assert set(one("cut -d: -f3 /proc/self/cgroup").split()) == {"/"}  # a namespace of its own hides where it is
    assert one("cat /proc/1/oom_score_adj") == "321"
    assert one("ulimit -n; ulimit -Hn").split() == ["100", "200"]
    assert "3072" in one("df -k /dev/shm")
    assert one("cat /proc/sys/net/core/somaxconn") == "77"
    assert "192.0.2.9" in one("cat /etc/hosts")
    assert "search inner.example" in one("cat /etc/resolv.conf")
    assert one("mknod /fuse c 10 229 && (: <>/fuse) 2>&1; true") in ("", "sh: can't open /fuse: No such device")
    assert "not permitted" in one("mknod /disk b 7 0 && (: </disk) 2>&1; true")


def test_two_containers_share_the_image_and_keep_their_writes_apart(stack: Stack, lab: Pystack) -> None:
    stack.up(f"services:\n  a:\n    image: busybox\n    {SLEEP}\n    deploy: {{replicas: 2}}\n")
    one, two = (str(stack.ps()[f"a-{n}"]["id"]) for n in (1, 2))
    inodes = [lab("container", "exec", c, "stat", "-c", "%i", "/bin/busybox").stdout for c in (one, two)]
    assert inodes[0] == inodes[1]  # one file on the disk, so one copy in the page cache
    containers = Path(lab.environment["PYSTACK_ROOT"]) / "containers"
    for ident in (one, two):
        done = subprocess.run(["du", "-sk", containers / ident], capture_output=True, text=True, check=True)
        assert int(done.stdout.split()[0]) < 100  # KiB, of an image of more than 1 MiB
    lab("container", "exec", one, "sh", "-c", "echo mine > /srv/hello")
    assert lab("container", "exec", two, "cat", "/srv/hello").stdout == "hello from the image\n"


def test_logs_stop_start_restart_and_exec_status(stack: Stack) -> None:
    stack.up(
        "services:\n  a:\n    image: busybox\n    command: sh -c 'echo out; echo err >&2; sleep 1000'\n"
        "    stop_grace_period: 0s\n"
    )
    done = stack.run("logs", "--no-log-prefix")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert stack.run("exec", "-T", "a", "sh", "-c", "exit 7", check=False).returncode == 7
    assert stack.run("exec", "-T", "a", "cat", stdin="through\n").stdout == "through\n"
    stack.run("stop")
    assert stack.ps()["a-1"]["state"] == "exited"
    stack.run("start")
    first = stack.ps()["a-1"]["started"]
    stack.run("restart")
    assert stack.ps()["a-1"]["started"] != first


def test_containers_run_on_when_the_agent_is_killed(stack: Stack, lab: Pystack) -> None:
    stack.up(f"services:\n  a:\n    image: busybox\n    {SLEEP}\n    restart: always\n")
    before = stack.ps()["a-1"]
    lab("lab", "fault", "--name", lab.lab, "kill", "n1", "agent")
    for _ in range(100):
        done = stack.run("ps", "--format", "json", check=False)
        if done.returncode == 0 and '"running"' in done.stdout:
            break
    after = stack.ps()["a-1"]
    assert (after["id"], after["started"], after["restarts"]) == (before["id"], before["started"], 0)
    assert stack.exec("a", "echo", "still here") == "still here\n"


def test_restart_policy_on_failure(stack: Stack) -> None:
    stack.up("services:\n  a: {image: busybox, command: sh -c 'sleep 0.3; exit 2', restart: 'on-failure:2'}\n", check=False)
    for _ in range(100):
        row = stack.ps()["a-1"]
        if row["state"] == "exited":
            break
    assert (row["restarts"], row["exit_code"]) == (2, 2)


def test_what_is_removed_at_its_end_is_gone_when_run_returns(lab: Pystack) -> None:
    for number in range(5):
        lab("container", "run", "--rm", "--name", f"passing{number}", "busybox", "true")
        assert f"passing{number}" not in lab("container", "ls", "-a").stdout


def test_a_single_container_and_its_exit_status(lab: Pystack) -> None:
    done = lab("container", "run", "--rm", "busybox", "sh", "-c", "echo hi; exit 5", check=False)
    assert (done.stdout, done.returncode) == ("hi\n", 5)
    ident = lab("container", "run", "-d", "--name", "single", "busybox", "sleep", "1000").stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", ident)
    state = json.loads(lab("container", "inspect", "single").stdout)[0]["State"]
    assert state["Running"]
    lab("container", "rm", "-f", "single")


def test_images_save_load_and_rm(lab: Pystack, tmp_path: Path) -> None:
    lab("image", "tag", "busybox", "other:1")
    lab("image", "save", "-o", str(tmp_path / "saved.tar"), "other:1")
    lab("image", "rm", "other:1")
    assert "other" not in lab("image", "ls").stdout
    assert "Loaded image: other:1" in lab("image", "load", "-i", str(tmp_path / "saved.tar")).stdout
    lab("image", "rm", "other:1")
    refused = lab("image", "load", "-i", "/etc/passwd", check=False)
    assert refused.returncode == 1
    assert "not an image archive" in refused.stderr


def test_the_openapi_document_names_every_route(lab: Pystack) -> None:
    document = json.loads(lab("system", "openapi").stdout)
    assert {"/v1/up", "/v1/plan", "/v1/stacks/{stack}/tasks"} <= document["paths"].keys()


class Terminal:
    """`pystack container exec -t` on a real pseudo-terminal of 33 rows and 77 columns."""

    def __init__(self, lab: Pystack, container: str, script: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "container", "exec", "-t", "-i", container, "sh", "-c", script],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=lab.environment,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = b""

    def see(self, word: bytes) -> None:
        while word not in self.seen:
            ready, _, _ = select.select([self.master], [], [], 30 * PATIENCE)
            assert ready, self.seen
            try:
                self.seen += os.read(self.master, 1024)
            except OSError:  # the client ended
                raise AssertionError(self.seen.decode()) from None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def sleeper(lab: Pystack) -> Iterator[str]:
    lab("container", "run", "-d", "--name", "sleeper", "busybox", "sleep", "1000")
    yield "sleeper"
    lab("container", "rm", "-f", "sleeper")


def test_exec_with_a_terminal(lab: Pystack, sleeper: str) -> None:
    """The process inside sees a terminal of its own, with the size of the client's."""
    # crun hands the size over beside the start of the process, which may be first to look: SIGWINCH tells it then
    terminal = Terminal(lab, sleeper, "until stty size 2>/dev/null; do :; done; read word; echo got $word; exit 9")
    try:
        terminal.see(b"33 77")
        os.write(terminal.master, b"typed\r")
        terminal.see(b"got typed")
        assert terminal.process.wait(20) == 9
    finally:
        terminal.close()


def test_who_hangs_up_leaves_no_process_behind(lab: Pystack, sleeper: str) -> None:
    terminal = Terminal(lab, sleeper, "echo ready; exec sleep 1234")
    try:
        terminal.see(b"ready")
    finally:
        terminal.close()

    def gone() -> None:
        assert "1234" not in lab("container", "exec", sleeper, "ps").stdout

    eventually(gone)
