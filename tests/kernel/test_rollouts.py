"""Rollouts that belong to the cluster: left, paused, given up, superseded, handed over; hooks, canaries, blue and green."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from tests.conftest import Pystack, Stack, cluster_of, eventually

WEB = """
services:
  db:
    image: busybox
    command: sleep 10000
    stop_signal: SIGKILL
    volumes: [data:/data]
    healthcheck: {test: "true", interval: 1s}
  web:
    image: busybox
    command: sh -c "mkdir -p /w; echo VERSION > /w/index.html; WORK; exec httpd -f -p 80 -h /w"
    stop_signal: SIGKILL
    ports: ["18096:80"]
    depends_on: {db: {condition: service_healthy}}
    deploy: {replicas: 4, update_config: {parallelism: 1, delay: DELAY}}
    MORE
volumes: {data: {}}
"""


def web(version: str, *, work: str = "true", delay: str = "1s", more: str = "") -> str:
    return WEB.replace("VERSION", version).replace("WORK", work).replace("DELAY", delay).replace("MORE", more)


@pytest.fixture(scope="module")
def lab() -> Iterator[Pystack]:
    with cluster_of(2) as pystack:
        yield pystack


@contextmanager
def begun(stack: Stack, lab: Pystack, text: str) -> Iterator[subprocess.Popen[str]]:
    """An `up` that is on its way; it has exchanged something."""
    stack.write(text)
    before = definitions(stack)
    # who runs the tests in the background may have SIGINT ignored, and children inherit that
    words = ["env", "--default-signal=INT", sys.executable, "-m", "orchestrator", "-f", str(stack.file), "up", "-p", stack.name]
    with subprocess.Popen(words, env=lab.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as up:
        try:
            eventually(lambda: check(definitions(stack) != before), 30)
            yield up
        finally:
            up.kill()


def check(holds: bool) -> None:
    assert holds


def definitions(stack: Stack) -> Counter[str]:
    return Counter(str(t["definition"]) for t in stack.ps().values() if t["service"] == "web")


def rollout(stack: Stack, lab: Pystack) -> dict[str, Any]:
    done = lab("rollout", "status", "-p", stack.name, "--format", "json", check=False)
    assert done.stdout, done.stderr
    row: dict[str, Any] = json.loads(done.stdout)[0]
    return row


def answers(lab: Pystack, count: int = 100) -> Counter[str]:
    ask = f"for n in $(seq {count}); do curl -s -m 3 http://10.99.0.1:18096/ || echo none; done"
    return Counter(lab.on("outside", "sh", "-c", ask).split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-C", "kill -9"])
def test_a_client_that_goes_leaves_its_rollout_running(stack: Stack, lab: Pystack, number: signal.Signals) -> None:
    stack.up(web("one", delay="0s"))
    with begun(stack, lab, web("two")) as up:
        up.send_signal(number)
        said = up.communicate(timeout=20)[0]
        if number == signal.SIGINT:
            assert "goes on: `pystack rollout watch`" in said
            assert up.returncode == 130
    assert rollout(stack, lab)["state"] == "running"
    assert len(definitions(stack)) == 2
    assert "definitions" in stack.run("ps").stderr
    lab("rollout", "watch", "-p", stack.name)
    found = rollout(stack, lab)
    assert found["state"] == "succeeded"
    assert found["services"]["web"] == [4, 4]
    assert answers(lab, 20) == {"two": 20}


def test_an_up_whose_server_is_killed_goes_on(stack: Stack, lab: Pystack) -> None:
    stack.up(web("one", delay="0s"))
    with begun(stack, lab, web("two")) as up:
        lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")
        said = up.communicate(timeout=180)[0]
        assert up.returncode == 0, said
    assert "the next one is asked to go on" in said
    assert answers(lab, 20) == {"two": 20}


def test_a_rollout_is_paused_resumed_and_given_up(stack: Stack, lab: Pystack) -> None:
    stack.up(web("one", delay="0s"))
    one = ("-p", stack.name)
    with begun(stack, lab, web("two")) as up:
        lab("rollout", "pause", *one)
        assert "is paused" in up.communicate(timeout=30)[0]
        assert up.returncode == 1
    found = rollout(stack, lab)
    assert found["state"] == "paused"
    done, total = found["services"]["web"]
    assert 0 < done < total
    lab("rollout", "resume", *one)
    assert rollout(stack, lab)["services"]["web"] == [4, 4]
    assert "nothing is left" in lab("rollout", "resume", *one, check=False).stderr
    with begun(stack, lab, web("three")) as up:
        lab("rollout", "abort", *one)
        assert "`rollout abort` came meanwhile" in up.communicate(timeout=30)[0]
    assert answers(lab, 20) == {"two": 20}
    assert rollout(stack, lab)["state"] == "succeeded"  # that which went back
    assert "was aborted" in stack.run("history").stdout


def test_a_canary_that_is_paused_says_at_which_step_it_stays(stack: Stack, lab: Pystack) -> None:
    staged = "x-update: {strategy: canary, steps: [{weight: 25%, hold: 20s}]}"
    one = ("-p", stack.name)

    def phase(words: str) -> None:
        assert words in rollout(stack, lab)["phase"]

    stack.up(web("one", delay="0s", more=staged))
    with begun(stack, lab, web("two", delay="0s", more=staged)) as up:
        eventually(lambda: phase("step 1 of 1"), 60)
        lab("rollout", "pause", *one)
        eventually(lambda: phase("web: step 1 of 1, 25% for 20 s, paused: `pystack rollout resume`"), 20)
        lab("rollout", "resume", *one)
        assert up.wait(120) == 0


def test_the_newest_wish_supersedes(stack: Stack, lab: Pystack) -> None:
    stack.up(web("one", delay="0s"))
    with begun(stack, lab, web("two", delay="5s")) as up:
        stack.up(web("three", delay="0s"))
        assert "`up` came meanwhile, so this `up` was given up" in up.communicate(timeout=30)[0]
        assert up.returncode == 1
    assert answers(lab, 20) == {"three": 20}


def test_a_server_that_starts_again_goes_on(stack: Stack, lab: Pystack) -> None:
    stack.up(web("one", delay="0s"))
    with begun(stack, lab, web("two", delay="2s")):
        lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")
        eventually(lambda: check(rollout(stack, lab)["state"] == "succeeded"), 60)
    assert rollout(stack, lab)["services"]["web"] == [4, 4]
    assert answers(lab, 20) == {"two": 20}


def service_update(stack: Stack, lab: Pystack) -> list[str]:
    """What makes version two of the service by Swarm's API, as Docker's client does."""
    curl = ["curl", "-sS", "--fail-with-body", "--unix-socket", f"{lab.environment['PYSTACK_ROOT']}/run/swarm.sock"]
    at = f"http://swarm/v1.48/services/{stack.name}_web"
    found = json.loads(subprocess.run([*curl, at], check=True, capture_output=True, text=True).stdout)
    found["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] = ["VERSION=two"]
    update = f"{at}/update?version={found['Version']['Index']}"
    return [*curl, "-H", "Content-Type: application/json", "-d", json.dumps(found["Spec"]), update]


def another_way(stack: Stack, lab: Pystack, way: str) -> list[str]:
    """Words that change the stack by *way*."""
    pystack = [sys.executable, "-m", "orchestrator"]
    if way == "apply":
        stack.write(web("two", delay="2s"))
        stack.run("plan", "-o", str(stack.directory / "plan.json"))
        return [*pystack, "apply", str(stack.directory / "plan.json")]
    if way == "sync":
        run = partial(subprocess.run, cwd=stack.directory, check=True, capture_output=True)
        run(["git", "init", "-q", "-b", "main"])
        (stack.directory / "compose.yml").write_text(f"name: {stack.name}\n{web('two', delay='2s')}")
        run(["git", "add", "compose.yml"])
        run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "two"])
        return [*pystack, "gitops", "add", str(stack.directory), "--name", stack.name, "--interval", "1h"]
    return [*pystack, "node", "drain", "n2"] if way == "drain" else service_update(stack, lab)


WAYS = {"apply": "apply", "sync": "sync", "drain": "redeploy", "service update": "up"}


@pytest.mark.parametrize(("way", "verb"), WAYS.items(), ids=WAYS)
def test_a_server_that_starts_again_goes_on_whatever_began_the_change(stack: Stack, lab: Pystack, way: str, verb: str) -> None:
    stack.up(web("$${VERSION:-one}", delay="2s"))

    def places() -> set[tuple[object, ...]]:
        return {(t["task"], t["node"], t["definition"]) for t in stack.ps().values()}

    before = places()
    words = another_way(stack, lab, way)
    try:
        with subprocess.Popen(
            words, env=lab.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as change:
            eventually(lambda: check(places() != before or change.poll() is not None), 40)
            found = rollout(stack, lab)
            assert (found["verb"], found["state"]) == (verb, "running"), change.poll() is None or change.communicate()
            lab("lab", "fault", "--name", lab.lab, "kill", "n1", "server")
            eventually(lambda: check(rollout(stack, lab)["state"] == "succeeded"), 60)
            change.kill()
        found = rollout(stack, lab)
        assert (found["verb"], found["services"]["web"]) == (verb, [4, 4])
        if way == "drain":
            assert {t["node"] for t in stack.ps().values() if t["service"] == "web"} == {"n1"}
        else:
            assert answers(lab, 20) == {"two": 20}
    finally:
        lab("gitops", "rm", stack.name, check=False)
        lab("node", "activate", "n2")


HOOKS = """x-hooks:
      pre_deploy: {command: [sh, -c, "echo migrating; test -d /data; exit %d"], deadline: 20s}
      post_deploy: [echo, deployed]"""


def test_hooks_run_once_and_a_failing_one_changes_nothing(stack: Stack, lab: Pystack) -> None:
    failed = stack.up(web("one", delay="0s", more=HOOKS % 3), check=False)
    assert failed.returncode == 1
    assert "pre_deploy failed: exited with 3" in failed.stderr
    assert "| migrating" in failed.stderr
    assert set(stack.ps()) == {"db-1"}  # what the hook needs is there, its service is not
    stack.up(web("one", delay="0s", more=HOOKS % 0))
    stack.up()
    rows = lab.json("job", "history", "-p", stack.name, "--format", "json")
    assert [(r["trigger"], r["state"]) for r in rows] == [
        ("pre_deploy", "failed"),
        ("pre_deploy", "succeeded"),
        ("post_deploy", "succeeded"),
    ]
    before = stack.ps()
    assert stack.up(web("two", delay="0s", more=HOOKS % 4), check=False).returncode == 1
    assert stack.ps() == before
    assert answers(lab, 10) == {"one": 10}


CANARY = "x-update: {strategy: canary, steps: [{weight: 10%%, hold: %s}, {weight: 50%%, hold: %s}]%s}"


def test_a_canary_gets_its_share_and_takes_the_update_back_when_it_fails(stack: Stack, lab: Pystack) -> None:
    stack.up(web("one", delay="0s", more=CANARY % ("60s", "0s", "")))
    eventually(lambda: check(answers(lab, 20) == {"one": 20}))
    stack.write(web("two", delay="0s", more=CANARY % ("60s", "0s", "")))
    words = [sys.executable, "-m", "orchestrator", "-f", str(stack.file), "up", "-p", stack.name]
    with subprocess.Popen(words, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        eventually(lambda: check("step 1 of 2, 10%" in rollout(stack, lab)["phase"]), 30)
        found = answers(lab, 300)
        assert found["one"] + found["two"] == 300
        assert 5 <= found["two"] <= 70  # 30, with a deviation of 5
        lab("rollout", "promote", "-p", stack.name)
        assert up.wait(60) == 0
    assert answers(lab, 20) == {"two": 20}
    assert set(stack.ps()) == {"db-1", *(f"web-{n}" for n in range(1, 5))}
    bad = stack.up(web("three", work="sleep 1; exit 5", delay="0s", more=CANARY % ("5s", "0s", "")), check=False)
    assert bad.returncode == 1
    assert "exited with 5" in bad.stderr
    assert answers(lab, 20) == {"two": 20}
    look = ', analysis: [sh, -c, "echo slow; exit 7"]'
    bad = stack.up(web("four", delay="0s", more=CANARY % ("1s", "0s", look)), check=False)
    assert bad.returncode == 1
    assert "analysis failed: exited with 7" in bad.stderr
    assert answers(lab, 20) == {"two": 20}
    assert set(stack.ps()) == {"db-1", *(f"web-{n}" for n in range(1, 5))}


def test_blue_and_green_change_places_and_back(stack: Stack, lab: Pystack) -> None:
    more = "x-update: {strategy: blue-green, hold: 60s}"
    stack.up(web("one", delay="0s", more=more))
    for version, verb, wanted in (("two", "abort", "one"), ("three", "promote", "three")):
        stack.write(web(version, delay="0s", more=more))
        words = [sys.executable, "-m", "orchestrator", "-f", str(stack.file), "up", "-p", stack.name]
        with subprocess.Popen(words, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
            eventually(lambda: check("step 1 of 1, 100%" in rollout(stack, lab)["phase"]), 30)
            assert answers(lab, 50) == {version: 50}
            lab("rollout", verb, "-p", stack.name)
            assert up.wait(60) == (1 if verb == "abort" else 0)
        assert answers(lab, 50) == {wanted: 50}
        assert set(stack.ps()) == {"db-1", *(f"web-{n}" for n in range(1, 5))}


SCALED = """
services:
  burn:
    image: busybox
    command: sh -c "while true; do true; done"
    stop_signal: SIGKILL
    cpus: 0.1
    x-scale: {min: 1, max: 3, target: {cpu: 40%}}
"""


@pytest.mark.long
@pytest.mark.slow
def test_replicas_follow_what_they_use_until_somebody_says_how_many(stack: Stack, lab: Pystack) -> None:
    stack.up(SCALED)
    one = ("-p", stack.name)
    eventually(lambda: check(len(stack.ps()) == 3), 90)
    (row,) = lab.json("autoscale", "ls", *one, "--format", "json")
    assert "of 40%, which asks for" in row["reason"]
    stack.up()
    assert len(stack.ps()) == 3  # the file does not say how many
    stack.run("scale", "burn=2")
    (row,) = lab.json("autoscale", "ls", *one, "--format", "json")
    assert (row["replicas"], row["paused"]) == (2, True)
    assert "x-scale: " in lab("why-not", *one, "burn").stdout
    lab("autoscale", "resume", *one, "burn")
    assert not lab.json("autoscale", "ls", *one, "--format", "json")[0]["paused"]


STABLE = """
services:
  db:
    image: busybox
    command: sh -c "date +%s >> /data/starts; echo $$(hostname) >> /data/names; exec sleep SECONDS"
    stop_signal: SIGKILL
    x-stable: true
    deploy: {replicas: 3}
    volumes: [data:/data]
volumes: {data: {}}
"""


def test_stable_replicas_keep_their_names_and_volumes(stack: Stack, lab: Pystack) -> None:
    stack.up(STABLE.replace("SECONDS", "1000"))
    nodes = {name: t["node"] for name, t in stack.ps().items()}
    addresses = {name: t["addresses"] for name, t in stack.ps().items()}
    for n in "123":
        found = stack.run("exec", "-T", "--index", "1", "db", "nslookup", f"db-{n}.db").stdout
        assert str(next(iter(addresses[f"db-{n}"].values()))) in found  # type: ignore[attr-defined]
    said = stack.up(STABLE.replace("SECONDS", "2000")).stderr
    order = [line.split(":")[0][-1] for line in said.splitlines() if line.endswith(": running")]
    assert order == ["3", "2", "1"]
    for n in "123":
        names = stack.run("exec", "-T", "--index", n, "db", "cat", "/data/names").stdout.split()
        assert names == [f"db-{n}"] * 2
    stack.run("scale", "db=2")
    stack.run("scale", "db=3")
    assert {name: t["node"] for name, t in stack.ps().items()} == nodes
    assert len(stack.run("exec", "-T", "--index", "3", "db", "cat", "/data/starts").stdout.split()) == 3


def test_a_set_whose_first_replica_failed_is_mended_by_the_next_up(stack: Stack) -> None:
    broken = STABLE.replace("SECONDS", "1000").replace("exec sleep 1000", "exit 3")
    assert "exited with 3" in stack.up(broken, check=False).stderr
    stack.up(STABLE.replace("SECONDS", "1000"))  # replica 1 is exchanged before 2 and 3, which wait for it
    started = {name: str(row["started"]) for name, row in stack.ps().items()}
    assert started["db-1"] < started["db-2"] < started["db-3"]
    assert {row["state"] for row in stack.ps().values()} == {"running"}


def test_no_replica_of_a_set_is_exchanged_while_another_is_not_up(stack: Stack) -> None:
    slow = """
services:
  db:
    image: busybox
    command: sh -c "sleep 3; date -u +%Y-%m-%dT%H:%M:%S > /tmp/up; exec sleep NUMBER"
    stop_signal: SIGKILL
    x-stable: {start: parallel}
    healthcheck: {test: test -e /tmp/up, interval: 200ms, retries: 60}
    deploy: {replicas: REPLICAS}
"""
    stack.up(slow.replace("REPLICAS", "2").replace("NUMBER", "1000"))
    stack.up(slow.replace("REPLICAS", "3").replace("NUMBER", "2000"))
    up = {n: stack.run("exec", "-T", "--index", n, "db", "cat", "/tmp/up").stdout.strip() for n in "123"}
    started = {name: str(row["started"]) for name, row in stack.ps().items()}
    assert up["3"] <= started["db-2"]
    assert up["2"] <= started["db-1"]


def colour(stack: Stack) -> str:
    return stack.run("exec", "-T", "web", "sh", "-c", "echo ${COLOUR:-none}").stdout.strip()


def test_a_service_is_changed_without_its_file(stack: Stack, lab: Pystack) -> None:
    stack.up(web("one", delay="0s"), "--scale", "web=2")
    lab("set", "-p", stack.name, "web", "--env", "COLOUR=red", "--label", "a=b", "-m", "red it is")
    assert colour(stack) == "red"
    assert set(stack.ps()) == {"db-1", "web-1", "web-2"}
    assert "red it is" in stack.run("history").stdout
    again = lab("set", "-p", stack.name, "web", "--env", "COLOUR=red", check=False)
    assert "is like that already" in again.stderr
    assert lab("set", "-p", stack.name, "web", check=False).returncode == 2
    stack.run("rollback")
    assert colour(stack) == "none"
